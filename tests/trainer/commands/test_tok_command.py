"""`picochat tok` and `picochat batch` as a user calls them."""

from pathlib import Path
from pydoc_data.topics import topics

import pytest
from picochat_client.program import main
from picochat_contract.exit_codes import ClientExit
from support.corpora import write_corpus


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A built corpus and a tokenizer trained on it."""
    write_corpus(
        tmp_path, [topics[name].strip() for name in sorted(topics, key=lambda n: len(topics[n]))[8:20]]
    )
    assert tok_train(tmp_path, tmp_path) == ClientExit.OK
    return tmp_path


def tok_train(input: Path, out: Path, *options: str) -> int:
    arguments = ["--input", str(input), "--out", str(out / "tokenizer.json")]
    return main(["tok", "train", *arguments, "--type", "bpe", "--vocab-size", "400", *options])


@pytest.mark.parametrize("name", ["corpus.txt", "corpus_manifest.json", ""])
def test_train_takes_a_text_a_manifest_or_a_folder(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "again"
    assert tok_train(folder / name, out) == ClientExit.OK
    told = capsys.readouterr()
    assert "400 tokens, " in told.out
    assert "plain text" not in told.err
    assert (out / "tokenizer_config.json").is_file()


def test_a_text_that_is_not_there_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tok_train(folder / "none.txt", folder) == ClientExit.USAGE
    message = capsys.readouterr().err
    assert f"there is no {folder / 'none.txt'}" in message and "neither ." not in message


def test_a_folder_to_write_to_gets_a_tokenizer_json(folder: Path) -> None:
    out = folder / "out"
    out.mkdir()
    options = ["--input", str(folder), "--out", str(out), "--type", "byte"]
    assert main(["tok", "train", *options]) == ClientExit.OK
    assert (out / "tokenizer.json").is_file() and (out / "tokenizer_config.json").is_file()


def test_a_text_too_small_for_the_vocabulary_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = folder / "short.txt"
    text.write_text("a few words and a few words more")
    assert tok_train(text, folder / "small") == ClientExit.OK
    assert "of the 400 that were asked for" in capsys.readouterr().err


def test_rows_that_are_read_as_plain_text_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = folder / "rows.jsonl"
    rows.write_text('{"text": "one row"}\n' * 40)
    assert tok_train(rows, folder / "rows") == ClientExit.OK
    assert "picochat data build --input" in capsys.readouterr().err
    options = ["--corpus", str(rows), "--tokenizer", str(folder), "--context-size", "16"]
    assert main(["batch", "inspect", *options]) == ClientExit.OK
    assert "picochat data build --input" in capsys.readouterr().err


def test_inspect_lists_tokens_and_what_becomes_of_special_text(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Gr\u00fc\u00dfe <|im_start|> x"
    assert main(["tok", "inspect", "--tokenizer", str(folder), "--text", text]) == ClientExit.OK
    shown = capsys.readouterr().out
    assert "<|im_start|> stands 1 times in the text and gave its special id 1 0 times" in shown
    assert "round trip: the same bytes" in shown and "c3" in shown


def test_inspect_reads_a_file_and_cuts_a_long_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tokenizer", str(folder), "--file", str(folder / "corpus.txt"), "--limit", "5"]
    assert main(["tok", "inspect", *options]) == ClientExit.OK
    assert "more; --limit 0 lists all" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--text", "a", "--file", "b"]])
def test_inspect_wants_just_one_text(
    folder: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tok", "inspect", "--tokenizer", str(folder), *options]) == ClientExit.USAGE
    assert "either --text or --file" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["memory", "sharded", "packed"])
def test_batch_inspect_shows_rows_of_each_mode(
    folder: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tokenizer", str(folder / "tokenizer.json"), "--corpus", str(folder), "--mode", mode]
    assert main(["batch", "inspect", *options, "--context-size", "32", "--examples", "3"]) == ClientExit.OK
    shown = capsys.readouterr().out
    assert f"mode {mode}" in shown and "row 2: 32 tokens" in shown
    assert ("packed into" in shown) == (mode == "packed")
    assert not (folder / "tokens").exists()
