"""`picochat data preview|build|inspect-corpus`: what they show, what they write, how they end."""

import json
from pathlib import Path

import pytest
from picochat_client.program import main

Captured = pytest.CaptureFixture[str]


def text_file(folder: Path, name: str = "source.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(f"Line {n} of a small source." for n in range(60)) + "\n")
    return path


def pack_of(folder: Path) -> Path:
    (folder / "chat.jsonl").write_text('{"user": "Hi", "assistant": "Hello"}\n')
    (folder / "eval.jsonl").write_text('{"user": "Hey", "must_include": ["hello"]}\n')
    pack = {"name": "tiny", "corpus": text_file(folder).name, "chat": "chat.jsonl", "eval": "eval.jsonl"}
    path = folder / "pack.json"
    path.write_text(json.dumps(pack))
    return path


def test_preview_shows_a_table_and_writes_nothing(tmp_path: Path, capsys: Captured) -> None:
    source = text_file(tmp_path)
    assert main(["data", "preview", "--input", str(source), "--preview-chars", "10"]) == 0
    shown = capsys.readouterr().out
    assert "source.txt" in shown
    assert "readiness caution" in shown
    assert shown.endswith("source.txt:\nLine 0 of \n")
    assert list(tmp_path.iterdir()) == [source]


def test_preview_lists_25_files_and_counts_the_rest(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    for number in range(27):
        (folder / f"file{number:02d}.txt").write_text(f"text {number}")
    assert main(["data", "preview", "--input", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "2 more files" in shown
    assert "file24.txt" in shown
    assert "file25.txt" not in shown


@pytest.mark.parametrize("option", ["--pack", "--dataset-pack"])
def test_preview_of_a_pack_looks_at_its_rows_too(tmp_path: Path, capsys: Captured, option: str) -> None:
    assert main(["data", "preview", option, str(pack_of(tmp_path)), "--preview-chars", "0"]) == 0
    shown = capsys.readouterr().out
    assert "chat chat.jsonl: 1 rows" in shown
    assert "eval eval.jsonl: 1 rows" in shown
    assert "Line 0" not in shown


def test_preview_takes_other_rows_than_the_packs(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "other.jsonl").write_text('{"user": "Hi", "assistant": "Hello"}\n' * 3)
    pack = pack_of(tmp_path)
    assert main(["data", "preview", "--pack", str(pack), "--chat-input", str(tmp_path / "other.jsonl")]) == 0
    assert "chat other.jsonl: 3 rows" in capsys.readouterr().out


def test_a_recipe_names_what_it_leaves_out(tmp_path: Path, capsys: Captured) -> None:
    text_file(tmp_path, "a.txt")
    (tmp_path / "b.txt").write_text("left out")
    recipe = {
        "sources": [
            {"path": "a.txt", "label": "mine"},
            {"path": "b.txt", "include": False},
            {"path": "c.txt"},
        ]
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    assert main(["data", "preview", "--recipe", str(tmp_path / "recipe.json")]) == 0
    shown = capsys.readouterr().out
    assert "left out, recipe_excluded: 1 (b.txt)" in shown
    assert "left out, missing_source: 1 (c.txt)" in shown


def test_build_writes_a_folder(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "made"
    assert main(["data", "build", "--input", str(text_file(tmp_path)), "--out", str(out)]) == 0
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert names == [
        "corpus.txt",
        "corpus/dropped.parquet",
        "corpus/part-00000.parquet",
        "corpus_manifest.json",
        "corpus_report.md",
    ]
    assert "1 shards" in capsys.readouterr().out


def test_build_names_text_manifest_and_report_as_told(tmp_path: Path) -> None:
    arguments = ["--input", str(text_file(tmp_path)), "--out", str(tmp_path / "x/mine.txt")]
    arguments += ["--manifest", str(tmp_path / "m.json"), "--report", str(tmp_path / "r.md")]
    assert main(["data", "build", *arguments]) == 0
    assert (tmp_path / "x/mine.txt").read_text().startswith("Line 0")
    assert json.loads((tmp_path / "m.json").read_text())["text"] == "mine.txt"
    assert (tmp_path / "r.md").exists()


def test_build_never_writes_over_a_source(tmp_path: Path, capsys: Captured) -> None:
    source = text_file(tmp_path, "corpus.txt")
    before = source.read_text()
    for out in (tmp_path, source):
        assert main(["data", "build", "--input", str(source), "--out", str(out), "--force"]) == 64
        assert "would be written over the source" in capsys.readouterr().err
    assert source.read_text() == before
    assert list(tmp_path.iterdir()) == [source]


def test_build_does_not_write_into_a_source_folder_unless_it_is_passed_over(
    tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    text_file(folder)
    assert main(["data", "build", "--input", str(folder), "--out", str(folder / "made")]) == 64
    assert "the next build would read" in capsys.readouterr().err
    assert main(["data", "build", "--input", str(folder), "--out", str(folder / ".made")]) == 0
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"sources": [{"path": "texts", "exclude": ["made"]}]}))
    assert main(["data", "build", "--recipe", str(recipe), "--out", str(folder / "made")]) == 0


@pytest.mark.parametrize("name", ["corpus.txt", "corpus_manifest.json", "corpus_report.md"])
def test_build_replaces_a_corpus_and_nothing_else_unless_forced(
    tmp_path: Path, capsys: Captured, name: str
) -> None:
    command = ["data", "build", "--input", str(text_file(tmp_path)), "--out", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    assert main(command) == 64
    assert f"{name} is there already" in capsys.readouterr().err
    assert (tmp_path / "out" / name).read_text() == "{}"
    assert main([*command, "--force"]) == 0
    assert main(command) == 0
    (tmp_path / "out/corpus.txt").write_text("edited by hand")
    assert main(command) == 64


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("made.parquet", "expected a folder or a name that ends with .txt"),
        ("made.txt.gz", "expected a folder or a name that ends with .txt"),
        ("a_file", "a_file is a file; expected a folder"),
        ("a_file/made", "a_file is a file; expected a folder"),
    ],
)
def test_build_refuses_an_out_that_cannot_hold_a_corpus(
    tmp_path: Path, capsys: Captured, out: str, message: str
) -> None:
    (tmp_path / "a_file").write_text("x")
    assert main(["data", "build", "--input", str(text_file(tmp_path)), "--out", str(tmp_path / out)]) == 64
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    assert (
        main(["data", "build", "--input", str(text_file(tmp_path)), "--out", str(tmp_path / "run.v1")]) == 0
    )
    assert (tmp_path / "run.v1/corpus.txt").exists()


def test_one_file_cannot_be_two_outputs(tmp_path: Path, capsys: Captured) -> None:
    arguments = ["--input", str(text_file(tmp_path)), "--out", str(tmp_path / "out")]
    assert main(["data", "build", *arguments, "--report", str(tmp_path / "out/corpus.txt")]) == 64
    assert "--manifest and --report" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--label", "--license", "--text-field"])
def test_options_of_input_sources_are_refused_beside_a_pack(
    tmp_path: Path, capsys: Captured, option: str
) -> None:
    assert main(["data", "preview", "--pack", str(pack_of(tmp_path)), option, "x"]) == 64
    assert f"{option} is about --input" in capsys.readouterr().err


def test_rows_that_cannot_be_read_end_a_preview_before_the_corpus(tmp_path: Path, capsys: Captured) -> None:
    arguments = ["--input", str(text_file(tmp_path)), "--chat-input", str(tmp_path / "nowhere.jsonl")]
    assert main(["data", "preview", *arguments]) == 64
    assert capsys.readouterr().out == ""


def test_names_of_files_are_shown_as_they_are(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "t[bold]"
    folder.mkdir()
    text_file(folder, "[draft].txt")
    assert main(["data", "preview", "--input", str(folder), "--preview-chars", "0"]) == 0
    assert "t[bold]/[draft].txt" in capsys.readouterr().out


def test_cleaning_options_reach_the_build(tmp_path: Path) -> None:
    rows = [{"text": "same\nsame\nmail a@example.org"}, {"text": "x"}, {"body": "not read"}]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"body": row.get("text", "same  ")}) + "\n" for row in rows))
    arguments = ["--input", str(source), "--out", str(tmp_path / "out"), "--text-field", "body"]
    arguments += ["--label", "mine", "--license", "CC0-1.0", "--pii", "mask", "--no-repeated-lines"]
    arguments += ["--min-characters", "2", "--no-near-duplicates", "--workers", "1"]
    assert main(["data", "build", *arguments]) == 0
    manifest = json.loads((tmp_path / "out/corpus_manifest.json").read_text())
    assert (tmp_path / "out/corpus.txt").read_text() == "same\nsame\nmail <EMAIL>\n\nsame\n"
    assert manifest["dropped_counts"] == {"too_short": 1}
    assert (list(manifest["labels"]), list(manifest["licenses"])) == (["mine"], ["CC0-1.0"])


@pytest.mark.parametrize("command", [["preview"], ["build", "--out", "x"]])
def test_a_missing_input_is_a_usage_error_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *command, "--input", "nowhere.txt"]) == 64
    assert "error [corpus_missing]: no dataset source at nowhere.txt" in capsys.readouterr().err
    assert main(["data", *command]) == 64
    assert "give --input PATH" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["preview"], ["build", "--out", "out"]])
def test_without_text_the_end_is_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    assert main(["data", *command, "--input", "empty.txt"]) == 2
    assert "readiness blocked: there is no text: empty_text 1" in capsys.readouterr().out


def test_inspect_corpus_checks_and_shows(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    main(["data", "build", "--input", str(text_file(tmp_path)), "--out", str(out)])
    capsys.readouterr()
    assert main(["data", "inspect-corpus", "--corpus", str(out), "--preview-chars", "6"]) == 0
    shown = capsys.readouterr().out
    assert "num_documents: 1" in shown
    assert shown.endswith("doc-000001 source.txt:\nLine 0\n")
    for named in ("corpus_manifest.json", "corpus.txt"):
        assert main(["data", "inspect-corpus", "--corpus", str(out / named)]) == 0
    capsys.readouterr()
    (out / "corpus/part-00000.parquet").write_bytes(b"other")
    assert main(["data", "inspect-corpus", "--corpus", str(out)]) == 64
    assert "error [input_changed]" in capsys.readouterr().err
