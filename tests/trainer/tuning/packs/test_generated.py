"""Rows of benchmark profiles: their skills, the corpus, the hub's datasets from local copies."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.imports.hub import DatasetRequest
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.tuning.packs import hub_rows
from picochat_trainer.tuning.packs.files import open_pack
from picochat_trainer.tuning.packs.generated import Made, RowOptions, make_rows, shuffled
from picochat_trainer.tuning.packs.hub_rows import HubOptions
from picochat_trainer.tuning.packs.profiles import SKILLS_OF, BenchmarkProfile, RowSource
from picochat_trainer.tuning.packs.verdict import judge_rows
from picochat_trainer.tuning.skills.question import Side

Options = Callable[..., RowOptions]
FULL = BenchmarkProfile.FULL


def rows_of(profile: BenchmarkProfile, num_sft: int, num_eval: int, options: RowOptions) -> Made:
    made = Made()
    make_rows(profile, num_sft, num_eval, options, made)
    return made


@pytest.mark.parametrize("profile", [p for p in BenchmarkProfile if p is not FULL])
def test_a_profile_has_the_rows_of_its_skills(profile: BenchmarkProfile, options: Options) -> None:
    made = rows_of(profile, 64, 24, options())
    for rows in (made.chat, made.eval):
        assert {row.skill for row in rows} == set(SKILLS_OF[profile])
    assert (len(made.chat), len(made.eval)) == (64, 24)


def test_full_has_rows_about_the_corpus_with_its_licence(options: Options) -> None:
    made = rows_of(FULL, 64, 24, options())
    origins = Counter((row.provenance, row.license) for row in (*made.chat, *made.eval))
    assert origins == {("own corpus", "CC0-1.0"): 16 + 6, ("release skills", "MIT"): 48 + 18}


@pytest.mark.parametrize(("num_sft", "num_eval"), [(64, 24), (300, 80)])
@pytest.mark.parametrize("profile", [p for p in BenchmarkProfile if p is not BenchmarkProfile.WEAK_SKILLS])
def test_the_rows_are_ready_for_inspector_and_honesty(
    profile: BenchmarkProfile, num_sft: int, num_eval: int, options: Options, pack: Path
) -> None:
    made = rows_of(profile, num_sft, num_eval, options())
    verdict = judge_rows(
        shuffled(made.chat, 42, Side.SFT), shuffled(made.eval, 42, Side.EVAL), open_pack(pack).texts
    )
    assert (verdict.chat.status, verdict.eval.status, verdict.honesty["status"]) == ("ready",) * 3, (
        verdict.lines
    )


def test_a_corpus_that_says_too_little_leaves_its_rows_to_the_skills(options: Options, pack: Path) -> None:
    pack.with_name("corpus.txt").write_text("Too short.\n")
    made = rows_of(FULL, 64, 24, options())
    assert {row.provenance for row in made.chat} == {"release skills"}
    assert (len(made.chat), len(made.eval)) == (64, 24)
    assert "no rows about the corpus" in made.notes[0]


def test_hub_rows_have_their_shares_and_say_where_they_come_from(
    options: Options, copies: dict[str, str]
) -> None:
    made = rows_of(FULL, 100, 40, options(source=RowSource.HF, copies=copies))
    chat = Counter(str(row.provenance).split("#")[0] for row in made.chat)
    items = Counter(str(item.provenance).split("#")[0] for item in made.eval)
    assert chat["copy of HuggingFaceTB/smoltalk/train"] == 20
    assert chat["copy of cais/mmlu/auxiliary_train"] == 18
    assert chat["copy of openai/gsm8k/train"] == 12
    assert items["copy of allenai/ai2_arc/test"] == 10
    assert items["copy of cais/mmlu/test"] == 8
    assert items["copy of openai/gsm8k/test"] == 6
    assert (len(made.chat), len(made.eval)) == (100, 40)
    licenses = {row.license for row in made.chat if str(row.provenance).startswith("copy of cais")}
    assert licenses == {"mit"}
    assert any("left out 1 longer than the budget, 1 not a row" in note for note in made.notes)


def test_hub_rows_are_converted_with_their_right_answers(options: Options, copies: dict[str, str]) -> None:
    made = rows_of(FULL, 100, 40, options(source=RowSource.HF, copies=copies, style="scratchpad"))
    sums = [row for row in made.chat if row.category == "gsm8k"]
    assert len(sums) == 12
    for row in sums:
        n = int(row.user.split("buys ")[1].split()[0])
        assert row.assistant == f"She has {n}+{n}={2 * n} fruits.\nFinal answer: {2 * n}"
    letters = {
        item.user.split("case ")[1].split()[0]: item.correct_choice
        for item in made.eval
        if item.category == "mmlu_law"
    }
    assert letters
    assert all(letter == "BCD"[(int(case) - 100) % 3] for case, letter in letters.items())


def test_prompts_are_disjoint_with_hub_rows_too(options: Options, copies: dict[str, str]) -> None:
    made = rows_of(FULL, 100, 40, options(source=RowSource.HF, copies=copies))
    keys = [normal_form(row.user) for row in (*made.chat, *made.eval)]
    assert len(set(keys)) == len(keys)


def test_auto_falls_back_and_says_why_where_hf_fails(options: Options, copies: dict[str, str]) -> None:
    broken = {**copies, "arc": "/nowhere"}
    made = rows_of(FULL, 64, 24, options(source=RowSource.AUTO, copies=broken))
    assert {row.provenance for row in made.chat} == {"own corpus", "release skills"}
    assert made.notes[0].startswith("no rows of the hub, offline rows instead: cannot open split 'test'")
    with pytest.raises(ContractError) as caught:
        rows_of(FULL, 64, 24, options(source=RowSource.HF, copies=broken))
    assert caught.value.code is Code.CORPUS_MISSING


def test_hf_is_refused_for_profiles_without_hub_rows(options: Options) -> None:
    with pytest.raises(ContractError, match="has generated rows only"):
        rows_of(BenchmarkProfile.BEHAVIOR, 64, 24, options(source=RowSource.HF))


def test_equal_seeds_give_equal_rows(options: Options) -> None:
    first, second = (rows_of(FULL, 64, 24, options(seed=3)) for _ in range(2))
    assert (first.chat, first.eval) == (second.chat, second.eval)
    assert rows_of(FULL, 64, 24, options(seed=4)).chat != first.chat


class FakeHub:
    """A split on the hub, at a commit, whose card names another licence than is known here."""

    revision = "abc123"
    license = "cc0-1.0"

    @contextmanager
    def after(self, num_rows: int) -> Iterator[Iterator[dict[str, str]]]:
        yield iter([{"question": f"What is {n} doubled?", "answer": f"#### {2 * n}"} for n in range(9)])


def test_a_row_of_the_hub_names_commit_split_row_and_the_licence_of_its_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests: list[DatasetRequest] = []

    def fake_open(request: DatasetRequest) -> FakeHub:
        requests.append(request)
        return FakeHub()

    monkeypatch.setattr(hub_rows, "open_dataset", fake_open)
    options = HubOptions(revisions={"gsm8k": "abc123"}, max_characters=500)
    part = hub_rows.hub_chat("gsm8k", 2, options, random.Random(1), "direct", set())
    assert (requests[0].dataset, requests[0].config, requests[0].revision) == (
        "openai/gsm8k",
        "main",
        "abc123",
    )
    for row in part.rows:
        number = int(row.user.split()[2])
        assert row.provenance == f"hf:openai/gsm8k@abc123/main/train#{number}"
        assert row.license == "cc0-1.0"
        assert row.assistant == str(2 * number)
