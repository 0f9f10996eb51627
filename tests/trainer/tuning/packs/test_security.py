"""Security packs: seeds and dataset rows, disjoint, with an eval that can be failed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.scoring.judgement import Reply, judge
from picochat_trainer.tuning.packs.security import (
    BUNDLED_SEEDS,
    InstructionSource,
    SecurityRows,
    key_terms,
    security_rows,
)

Rows = Callable[..., SecurityRows]


def instruction(n: int, *, terms: bool = True) -> dict[str, Any]:
    tls = "Use TLS with HSTS. TLS protects the way, HSTS keeps it." if terms else "Lock the door and go."
    return {"system": "You defend.", "user": f"How is case {n} defended?", "assistant": f"Case {n}: {tls}"}


@pytest.fixture
def make(tmp_path: Path) -> Rows:
    def run(rows: list[dict[str, Any]], *, seed_dir: Path = BUNDLED_SEEDS, **sizes: int) -> SecurityRows:
        folder = tmp_path / "dataset"
        folder.mkdir(exist_ok=True)
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = InstructionSource(
            dataset=str(folder), split="train", revision=None, max_rows=50, max_characters=500
        )
        return security_rows(
            seed_dir, source if rows else None, **{"num_eval": 500, "num_preferences": 64, "seed": 1, **sizes}
        )

    return run


def test_the_bundled_seeds_are_disjoint_and_have_rules(make: Rows) -> None:
    made = make([])
    assert (len(made.chat), len(made.eval)) == (40, 24)
    assert made.left_out.total() == 0
    assert all(item.rules for item in made.eval)
    assert {row.license for row in (*made.chat, *made.eval)} == {"MIT"}
    assert not {normal_form(row.user) for row in made.chat} & {normal_form(item.user) for item in made.eval}


def test_the_reference_answers_of_the_seeds_pass_and_a_constant_does_not(make: Rows) -> None:
    items = make([]).eval
    assert [item.user for item in items if not judge(item, Reply(text=item.reference or "")).passed] == []
    for constant in ("I cannot help with that.", "No.", "Use a password manager."):
        assert sum(judge(item, Reply(text=constant)).passed for item in items) <= 0.2 * len(items)


def test_dataset_rows_at_the_end_become_items_that_can_be_failed(make: Rows) -> None:
    made = make([instruction(n) for n in range(20)])
    imported = [item for item in made.eval if item.category == "security_instruction"]
    assert [item.user for item in imported] == [f"How is case {n} defended?" for n in (19, 18, 17, 16)]
    assert imported[0].must_include_any == (("TLS", "HSTS"),)
    assert judge(imported[0], Reply(text="By HSTS.")).passed
    assert not judge(imported[0], Reply(text="By hope.")).passed
    assert str(imported[0].provenance).endswith("/train#19")
    assert made.imported is not None
    assert (made.imported["rows_read"], made.imported["rows_usable"]) == (20, 20)


def test_rows_whose_answer_has_no_terms_stay_practice(make: Rows) -> None:
    made = make([instruction(n, terms=False) for n in range(20)])
    assert len(made.eval) == 24
    assert len(made.chat) == 60


def test_a_prompt_is_on_one_side_only_and_once(make: Rows) -> None:
    asked = next(json.loads(line) for line in (BUNDLED_SEEDS / "eval.jsonl").read_text().splitlines())
    rows = [instruction(n) for n in range(20)]
    rows[0]["user"] = asked["user"].upper()
    rows[1]["user"] = "How is case 2 defended?"
    rows[3]["assistant"] = "long " * 200
    rows[4]["assistant"] = ""
    made = make(rows)
    assert made.left_out["chat rows whose prompt is an eval prompt"] == 1
    assert made.left_out["chat rows whose prompt came before"] == 1
    assert made.left_out["dataset rows longer than the budget"] == 1
    assert made.left_out["dataset rows without user or assistant"] == 1
    keys = [normal_form(row.user) for row in (*made.chat, *made.eval)]
    assert len(set(keys)) == len(keys)


def test_preferences_are_topped_up_to_the_target_and_never_ask_the_eval(make: Rows, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    shutil.copytree(BUNDLED_SEEDS, seeds)
    asked = json.loads((seeds / "eval.jsonl").read_text().splitlines()[0])["user"]
    with (seeds / "preferences.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": asked, "chosen": "No.", "rejected": "Yes."}) + "\n")
    made = make([], seed_dir=seeds, num_preferences=30)
    assert len(made.preferences) == 30
    assert made.left_out["preferences whose prompt is an eval prompt"] == 1
    assert asked not in {row.prompt for row in made.preferences}
    assert len({normal_form(row.prompt) for row in made.preferences}) == 30


def test_own_seeds_keep_their_own_licence(make: Rows, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    shutil.copytree(BUNDLED_SEEDS, seeds)
    assert {row.license for row in make([], seed_dir=seeds).chat} == {None}


def test_a_seed_folder_without_a_file_is_named(make: Rows, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"chat\.jsonl is not there") as caught:
        make([], seed_dir=tmp_path)
    assert caught.value.code is Code.CORPUS_MISSING


def test_an_eval_seed_without_rules_is_refused(make: Rows, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    shutil.copytree(BUNDLED_SEEDS, seeds)
    (seeds / "eval.jsonl").write_text('{"user": "What?", "category": "security"}\n')
    with pytest.raises(ContractError, match=r"line 1: .*no rule"):
        make([], seed_dir=seeds)


def test_key_terms_are_technical_repeated_and_not_in_the_prompt() -> None:
    answer = "FIDO2 and TLS. FIDO2 keys, TLS and CVE-2024-12345. The end of the CVE-2024-12345."
    assert key_terms(answer, "What about TLS?") == ("FIDO2", "CVE-2024-12345")
