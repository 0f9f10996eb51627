"""Parts of a pack: what is kept stays on its side, and everything still resolves."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_client.packs import dataset_settings
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tuning.packs.files import open_pack
from picochat_trainer.tuning.packs.slices import Slice, by_category, by_stage, write_slice

CHAT = [
    {"user": "1+1?", "assistant": "2", "category": "bench_math_a", "curriculum_stage": "l1_add", "own": 7},
    {"user": "1+2?", "assistant": "3", "category": "bench_math_b", "curriculum_stage": "l2_add"},
    {"user": "Who?", "assistant": "Me.", "category": "identity_self"},
    {"user": "Plain?", "assistant": "Yes."},
]
EVAL = [
    {"user": "2+1?", "must_include": ["3"], "category": "bench_math_a", "curriculum_stage": "l1_add"},
    {"user": "Name?", "must_include": ["Me"], "category": "identity_self"},
]
PAIRS = [{"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red.", "category": "identity_self"}]


def to_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n\n" for row in rows)  # blank lines must not shift what is kept


@pytest.fixture
def full(tmp_path: Path) -> Path:
    folder = tmp_path / "full"
    folder.mkdir()
    for name, rows in (("chat", CHAT), ("eval", EVAL), ("pairs", PAIRS)):
        (folder / f"{name}.jsonl").write_text(to_lines(rows))
    (folder / "arc.jsonl").write_text(json.dumps(EVAL[0]) + "\n")
    (folder / "corpus.txt").write_text("Some text.\n")
    pack = {
        "name": "all",
        "corpus": "corpus.txt",
        "chat": "chat.jsonl",
        "eval": "eval.jsonl",
        "preferences": "pairs.jsonl",
        "external": {"arc": "arc.jsonl"},
        "license": "MIT",
    }
    (folder / "pack.json").write_text(json.dumps(pack))
    return folder / "pack.json"


def sliced(full: Path, out: Path, *include: str, exclude: tuple[str, ...] = ()) -> Slice:
    keep = by_category(include, exclude)
    return write_slice(open_pack(full), out, keep, name=None, description=None, rule=f"categories {include}")


def users(path: Path) -> list[str]:
    return [json.loads(line)["user"] for line in path.read_text().splitlines()]


def test_rows_of_the_categories_stay_on_their_side_as_they_are(full: Path, tmp_path: Path) -> None:
    out = tmp_path / "slice"
    sliced(full, out, "bench_math_*")
    assert users(out / "chat.jsonl") == ["1+1?", "1+2?"]
    assert users(out / "eval.jsonl") == ["2+1?"]
    assert (out / "chat.jsonl").read_text().splitlines()[0] == json.dumps(CHAT[0])
    assert "| bench_math_b | 1 | 0 |" in (out / "tuning_slice.md").read_text()


def test_an_exclude_wins_over_an_include(full: Path, tmp_path: Path) -> None:
    sliced(full, tmp_path / "slice", "bench_*", "identity_*", exclude=("*_b",))
    assert users(tmp_path / "slice/chat.jsonl") == ["1+1?", "Who?"]
    sliced(full, tmp_path / "plain", exclude=("none", "bench_math_b"))
    assert users(tmp_path / "plain/chat.jsonl") == ["1+1?", "Who?"]


def test_the_new_pack_resolves_with_corpus_licence_and_benchmarks(full: Path, tmp_path: Path) -> None:
    made = sliced(full, tmp_path / "deep/er/slice", "bench_math_*")
    settings = dataset_settings(made.path)
    assert Path(settings["sources"][0]["path"]).samefile(full.with_name("corpus.txt"))
    assert settings["sources"][0]["license"] == "MIT"
    assert Path(settings["external"]["arc"]["path"]).samefile(full.with_name("arc.jsonl"))
    assert "preferences" not in settings  # none of theirs was kept
    assert json.loads(made.path.read_text())["name"] == "all-slice"


def test_an_empty_side_is_an_error_that_lists_the_categories(full: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ContractError, match=r"no row of eval is left .* bench_math_a, identity_self"
    ) as caught:
        sliced(full, tmp_path / "slice", "bench_math_b")
    assert caught.value.code is Code.BAD_ROW
    assert not (tmp_path / "slice").exists()


def test_preferences_are_sliced_too(full: Path, tmp_path: Path) -> None:
    made = sliced(full, tmp_path / "slice", "identity_*")
    assert "Sky?" in (tmp_path / "slice/preferences.jsonl").read_text()
    assert dataset_settings(made.path)["preferences"]["path"].endswith("slice/preferences.jsonl")


def test_a_slice_by_stage(full: Path, tmp_path: Path) -> None:
    write_slice(
        open_pack(full), tmp_path / "s", by_stage(["l1_*"]), name="one", description="d", rule="stages l1_*"
    )
    assert users(tmp_path / "s/chat.jsonl") == ["1+1?"]
    assert json.loads((tmp_path / "s/dataset_pack.json").read_text())["name"] == "one"


def test_the_folder_of_the_pack_itself_is_refused(full: Path) -> None:
    with pytest.raises(ContractError, match="folder of the pack itself"):
        sliced(full, full.parent, "bench_math_*")
    assert json.loads(full.read_text())["name"] == "all"


def test_a_pack_without_rows_has_no_slices(tmp_path: Path, pack: Path) -> None:
    with pytest.raises(ContractError, match="names no chat rows"):
        sliced(pack, tmp_path / "slice", "*")
