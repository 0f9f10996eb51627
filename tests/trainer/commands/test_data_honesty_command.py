"""`picochat data honesty`: what it compares, what it prints, how it ends, and that nothing given is passed over."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_client.program import main
from picochat_contract import layout

PROMPT = "Which gate decides about the release of a finished language model?"
CHAT = {"user": "What is it that we do?", "assistant": "We train."}
ITEM = {"user": PROMPT, "must_include": ["gate"]}
Honesty = Callable[..., int]


def put(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a text, SFT rows and eval items that have nothing in common."""
    (tmp_path / "text.txt").write_text("\n".join(f"Line {n} of a small source." for n in range(60)) + "\n")
    put(tmp_path / "chat.jsonl", CHAT)
    put(tmp_path / "eval.jsonl", ITEM)
    return tmp_path


@pytest.fixture
def honesty(files: Path) -> Honesty:
    """Run the command with files of `files`; options are given as `name=file`."""

    def run(*options: str, **given: str) -> int:
        named = [(f"--{name.replace('_', '-')}", str(files / path)) for name, path in given.items()]
        arguments = [part for pair in named for part in pair]
        return main(["data", "honesty", "--out-dir", str(files / "out"), *arguments, *options])

    return run


LOOSE = {"corpus": "text.txt", "chat_input": "chat.jsonl", "eval_input": "eval.jsonl"}


def report(files: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files / "out/honesty_report.json").read_text())
    return found


def pairs(files: Path) -> set[str]:
    return {pair["pair"] for pair in report(files)["contamination_matrix"]["pairs"]}


def test_clean_files_exit_0(files: Path, honesty: Honesty) -> None:
    assert honesty(**LOOSE) == 0
    assert report(files)["status"] == "ready"
    assert "Status: **ready**" in (files / "out/report.md").read_text()


def test_a_leak_is_named_and_exits_2(
    files: Path, honesty: Honesty, capsys: pytest.CaptureFixture[str]
) -> None:
    put(files / "chat.jsonl", CHAT, {"user": PROMPT.upper(), "assistant": "a"})
    assert honesty(**LOOSE) == 2
    assert "the prompt of eval:1 is also the prompt of sft:2" in capsys.readouterr().out
    assert report(files)["status"] == "blocked"


def test_what_an_earlier_call_left_is_not_compared(files: Path, honesty: Honesty) -> None:
    put(files / "arc.jsonl", ITEM)
    put(files / "out" / layout.PREFERENCES, {"prompt": PROMPT, "chosen": "yes it is", "rejected": "no"})
    assert honesty("--external-eval", f"arc={files / 'arc.jsonl'}", **LOOSE) == 0
    assert "eval_vs_external" in pairs(files)
    assert honesty(**LOOSE) == 0
    assert pairs(files) == {"corpus_vs_sft", "corpus_vs_eval", "sft_vs_eval"}
    assert (report(files)["preferences_sha256"], report(files)["external_sha256"]) == (None, {})


@pytest.mark.parametrize("name", ["../../arc", "a/b", "", ".hidden"])
def test_a_benchmark_gets_no_name_that_leads_elsewhere(
    files: Path, honesty: Honesty, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(files / "arc.jsonl", ITEM)
    assert honesty("--external-eval", f"{name}={files / 'arc.jsonl'}", **LOOSE) == 64
    assert "expected name=path" in capsys.readouterr().err


def test_options_win_over_a_pack(files: Path, honesty: Honesty) -> None:
    pack = {"corpus": "text.txt", "chat": "chat.jsonl", "eval": "eval.jsonl"}
    (files / "pack.json").write_text(json.dumps(pack))
    put(files / "leaky.jsonl", CHAT, {"user": PROMPT, "assistant": "a"})
    put(files / "arc.jsonl", {**ITEM, "user": "Which metal has twice the density of the other ones here?"})
    assert honesty(pack="pack.json") == 0
    external = f"arc={files / 'arc.jsonl'}"
    assert honesty("--external-eval", external, pack="pack.json", chat_input="leaky.jsonl") == 2
    assert (report(files)["num_sft"], set(report(files)["external_sha256"])) == (2, {"arc"})


def test_a_manifest_beside_a_text_counts_only_where_it_is_about_it(files: Path, honesty: Honesty) -> None:
    text = str(files / "text.txt")
    assert main(["data", "build", "--input", text, "--out", str(files / "built")]) == 0
    places = {"corpus": f"built/{layout.CORPUS}", "chat_input": "chat.jsonl", "eval_input": "eval.jsonl"}
    assert honesty(**places) == 0
    built = report(files)["corpus_sha256"]
    assert honesty(**places | {"corpus": "built"}) == 0
    assert report(files)["corpus_sha256"] == built
    (files / "built/other.txt").write_text(f"He asked: {PROMPT}\n")
    (files / "built" / layout.CORPUS).write_text(f"He asked: {PROMPT}\n")
    for name in ("other.txt", layout.CORPUS):
        assert honesty(**places | {"corpus": f"built/{name}"}) == 0
        assert report(files)["corpus_prompt_hits"] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give either --pack or --corpus"),
        ({**LOOSE, "pack": "pack.json"}, "give either --pack or --corpus"),
        ({"corpus": "text.txt"}, "--corpus needs --chat-input and --eval-input"),
        ({**LOOSE, "corpus": "nowhere.txt"}, "nowhere.txt; give a text file"),
    ],
)
def test_what_is_missing_is_named(
    honesty: Honesty, given: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert honesty(**given) == 64
    assert message in capsys.readouterr().err
