"""Which token store a command works on: named ones are checked, built ones reused only while they are whole."""

from pathlib import Path

import pytest
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.commands.token_folder import tokens_for
from picochat_trainer.local_run import locked
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.tokens import TokenStore
from support.corpora import write_corpus


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_corpus(tmp_path, ["a first document", "and a second one"])
    tokenizer = train_tokenizer(TokenizerConfig(type="byte"), [])
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json")
    return tmp_path


def built(files: Path, **given: Path | None) -> Path:
    corpus = {
        "corpus": files / "corpus.txt",
        "corpus_manifest": files / "corpus_manifest.json",
        "tokens": None,
    }
    return tokens_for(**{**corpus, **given}, tokenizer=files / "tokenizer.json", out_dir=files / "base")


def flip(folder: Path) -> None:
    shard = folder / "tokens-000000.bin"
    raw = bytearray(shard.read_bytes())
    raw[9] ^= 1
    shard.write_bytes(raw)


def test_a_store_with_a_changed_byte_is_built_again_not_reused(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(built(files))
    capsys.readouterr()
    TokenStore.open(built(files)).check_digests()
    assert "reusing" not in capsys.readouterr().err


def test_a_named_store_with_a_changed_byte_is_refused(files: Path) -> None:
    folder = built(files)
    flip(folder)
    with pytest.raises(ContractError, match="is not the file of") as caught:
        built(files, tokens=folder, corpus=None)
    assert caught.value.code is Code.INPUT_CHANGED


def test_a_named_store_of_another_corpus_is_refused(files: Path, tmp_path: Path) -> None:
    folder = built(files)
    other = tmp_path / "other.txt"
    other.write_text("not the same text")
    assert built(files, tokens=folder) == folder
    with pytest.raises(ContractError, match="made with the corpus"):
        built(files, tokens=folder, corpus=other, corpus_manifest=None)


def test_the_folder_above_a_store_names_it_too(files: Path) -> None:
    folder = built(files)
    assert built(files, tokens=folder.parent, corpus=None) == folder


def test_two_commands_do_not_build_in_one_folder_at_once(files: Path) -> None:
    with locked(files / "base"), pytest.raises(ContractError, match="another run is working in"):
        built(files)
    assert not (files / "base/tokens").exists()


def test_a_manifest_beside_the_text_is_pointed_at(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built(files, corpus_manifest=None)
    assert "--corpus-manifest" in capsys.readouterr().err
    built(files)
    assert "--corpus-manifest" not in capsys.readouterr().err
