"""`picochat data inspect` and the three starters: what they write, print and refuse."""

import json
from pathlib import Path

import pytest
from picochat_client.program import main
from picochat_trainer.tuning.preferences import read_preferences
from picochat_trainer.tuning.rows import read_chat, read_eval
from support.small_corpus import documents


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name, text in documents(20):
        (tmp_path / name).write_text(text)
    return folder


@pytest.fixture
def pack(tmp_path: Path, notes: Path) -> Path:
    path = tmp_path / "pack.json"
    path.write_text(json.dumps({"name": "notes", "corpus": "notes"}))
    return path


def chat_file(folder: Path, *extra: str) -> Path:
    colors = ("red", "tan", "blue", "pink", "gold", "gray", "teal", "lime")
    rows = [
        {"user": f"Question {i}?", "assistant": f"It is {color}.", "category": "x"}
        for i, color in enumerate(colors)
    ]
    path = folder / "chat.jsonl"
    path.write_text("".join(f"{line}\n" for line in [*map(json.dumps, rows), *extra]))
    return path


def test_inspect_prints_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", "--input", str(chat_file(tmp_path))]) == 0
    shown = capsys.readouterr().out
    assert "8 of 8 lines" in shown
    assert "chat rows ready" in shown


def test_inspect_names_bad_lines_and_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", "--input", str(chat_file(tmp_path, "{", '{"user": "x"}'))]) == 2
    shown = capsys.readouterr().out
    assert "line 9: not JSON" in shown
    assert "line 10: assistant: Field required" in shown
    assert "blocked invalid_rows: 2 lines are no rows" in shown


def test_inspect_writes_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", "--json", "--kind", "chat", "--input", str(chat_file(tmp_path))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["status"], found["num_rows"]) == ("chat", "ready", 8)


def test_inspect_counts_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("Some text to train on.\n" * 20)
    made = str(tmp_path / "tokenizer.json")
    arguments = ["--input", str(tmp_path / "text.txt"), "--out", made, "--type", "byte"]
    assert main(["tok", "train", *arguments]) == 0
    assert main(["data", "inspect", "--input", str(chat_file(tmp_path)), "--tokenizer", made]) == 0
    assert "prompt tokens" in capsys.readouterr().out


def test_a_pack_gets_all_three_starters(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = pack.parent / "rows"
    options = ["--pack", str(pack), "--promote", "--out"]
    assert main(["data", "sft-starter", *options, str(out / "chat.jsonl")]) == 0
    assert "the pack gives chat but no eval" in capsys.readouterr().out
    assert main(["data", "eval-starter", *options, str(out / "eval.jsonl")]) == 0
    assert "before a run" not in capsys.readouterr().out
    assert main(["data", "preference-starter", *options, str(out / "preferences.jsonl")]) == 0
    named = json.loads(pack.read_text())
    assert {key: named[key] for key in ("chat", "eval", "preferences")} == {
        "chat": "rows/chat.jsonl",
        "eval": "rows/eval.jsonl",
        "preferences": "rows/preferences.jsonl",
    }
    assert len(read_chat(out / "chat.jsonl")) == 32
    assert len(read_eval(out / "eval.jsonl")) == 24
    assert len(read_preferences(out / "preferences.jsonl")) > 20
    assert "| domain_gap | 12 |" in (out / "chat.md").read_text()


@pytest.mark.parametrize(("command", "items"), [("sft-starter", 5), ("eval-starter", 7)])
def test_a_folder_is_asked_about(notes: Path, command: str, items: int) -> None:
    out = notes.parent / "rows.jsonl"
    arguments = ["--input", str(notes), "--out", str(out), "--max-items", str(items)]
    assert main(["data", command, *arguments]) == 0
    assert len(out.read_text().splitlines()) == items


def test_a_built_corpus_keeps_its_documents(notes: Path) -> None:
    corpus = notes.parent / "run" / "corpus.txt"
    assert main(["data", "build", "--input", str(notes), "--out", str(corpus)]) == 0
    out = notes.parent / "rows.jsonl"
    assert main(["data", "sft-starter", "--input", str(corpus), "--out", str(out), "--max-items", "200"]) == 0
    assert len({row.group for row in read_chat(out)}) == 10


def test_preferences_follow_from_a_chat_file(tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    arguments = ["--input", str(chat_file(tmp_path)), "--out", str(out), "--max-rows", "4"]
    assert main(["data", "preference-starter", *arguments]) == 0
    assert len(read_preferences(out)) == 4


@pytest.mark.parametrize("command", ["sft-starter", "eval-starter", "preference-starter"])
def test_nothing_is_overwritten_without_force(
    tmp_path: Path, notes: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = chat_file(tmp_path) if command == "preference-starter" else notes
    out = tmp_path / "rows.jsonl"
    out.write_text("mine\n")
    arguments = ["data", command, "--input", str(source), "--out", str(out)]
    assert main(arguments) == 64
    assert "error [exists]" in capsys.readouterr().err
    assert out.read_text() == "mine\n"
    assert main([*arguments, "--force"]) == 0
    assert out.read_text() != "mine\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["sft-starter"], "invalid_value"),
        (["sft-starter", "--input", "a", "--pack", "b"], "invalid_value"),
        (["sft-starter", "--input", "nowhere"], "corpus_missing"),
        (["eval-starter", "--input", "nowhere", "--promote"], "invalid_value"),
        (["preference-starter"], "invalid_value"),
        (["preference-starter", "--input", "nowhere.jsonl"], "corpus_missing"),
    ],
)
def test_a_wrong_call_says_why(
    tmp_path: Path, arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *arguments, "--out", str(tmp_path / "rows.jsonl")]) == 64
    assert f"error [{code}]" in capsys.readouterr().err


def test_a_pack_without_chat_rows_has_no_preferences(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(pack.parent / "pairs.jsonl")
    assert main(["data", "preference-starter", "--pack", str(pack), "--out", out]) == 64
    assert "names no chat rows" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sft-starter", "eval-starter"])
@pytest.mark.parametrize("out", ["text.md", "text.jsonl"])
def test_a_starter_never_writes_over_what_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, out: str
) -> None:
    text = tmp_path / "text.md"  # where the report of text.jsonl goes
    text.write_text("\n\n".join(body for _, body in documents(4)))
    before = text.read_text()
    pack = tmp_path / "pack.json"
    pack.write_text(json.dumps({"corpus": "text.md"}))
    for source in (["--input", str(text)], ["--pack", str(pack)]):
        assert main(["data", command, *source, "--out", str(tmp_path / out), "--force"]) == 64
        assert "would be written over the source" in capsys.readouterr().err
    assert text.read_text() == before


def test_preferences_are_never_written_over_their_chat_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = str(chat_file(tmp_path))
    assert main(["data", "preference-starter", "--input", chat, "--out", chat, "--force"]) == 64
    assert "would be written over the source" in capsys.readouterr().err


def test_texts_without_sentences_make_no_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(9):
        (tmp_path / f"table{number}.txt").write_text(f"{number} | 1 | 2\n" * 50)
    out = str(tmp_path / "rows.jsonl")
    assert main(["data", "sft-starter", "--input", str(tmp_path), "--out", out]) == 64
    assert "error [corpus_too_small]: no row could be made" in capsys.readouterr().err
