"""The token store that a command works on: the one that was named, or one built from a corpus. No torch."""

import sys
from pathlib import Path
from typing import Final

from picochat_contract import layout
from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.local_run import locked
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store
from picochat_trainer.tokens.store import MANIFEST

_ROWS: Final = (".jsonl", ".json", ".csv", ".tsv")


def tokens_for(
    *,
    tokens: Path | None,
    corpus: Path | None,
    corpus_manifest: Path | None,
    tokenizer: Path,
    out_dir: Path,
) -> Path:
    """The folder of the store to use: `tokens` if it is whole, else <out_dir>/tokens, built from the corpus if need be.

    A store named together with a corpus must have been made of it.
    """
    loaded = Tokenizer.load(tokenizer)
    if tokens is None and corpus is None:
        raise ContractError(
            Code.INVALID_VALUE,
            "neither --corpus nor --tokens was given; name a text to train on or a token store to reuse",
            param="--corpus",
        )
    text = None if corpus is None else CorpusStore.of(corpus, corpus_manifest)
    if tokens is not None:
        return _checked(tokens, text, loaded)
    assert text is not None and corpus is not None
    if corpus_manifest is None:
        warn_of_rows(corpus)
        _point_at_manifest(corpus)
    with locked(out_dir):
        return _built(text, loaded, out_dir / layout.TOKENS_DIR)


def manifest_of(corpus: Path | None) -> Path | None:
    """The manifest that `corpus` names by itself: a folder's, or the file that it is."""
    if corpus is None:
        return None
    manifest = corpus / layout.CORPUS_MANIFEST if corpus.is_dir() else corpus
    return manifest if manifest.name == layout.CORPUS_MANIFEST and manifest.is_file() else None


def warn_of_rows(corpus: Path) -> None:
    """Say where a file of rows is taken for prose, with its names, braces and quotes."""
    if corpus.is_file() and corpus.suffix.lower() in _ROWS and manifest_of(corpus) is None:
        _say(
            "warning",
            f"{corpus} is read as plain text, one document with all its braces and quotes; `picochat data build --input "
            f"{corpus} --out <folder>/corpus.txt` would make a document of the text of each row",
        )


def _checked(tokens: Path, corpus: CorpusStore | None, tokenizer: Tokenizer) -> Path:
    below = tokens / layout.TOKENS_DIR
    folder = below if (below / MANIFEST).is_file() else tokens
    store = TokenStore.open(folder)
    store.refuse_other(
        corpus_sha256=None if corpus is None else corpus.sha256, tokenizer_sha256=tokenizer.digest
    )
    store.check_digests()
    return folder


def _built(corpus: CorpusStore, tokenizer: Tokenizer, folder: Path) -> Path:
    if _is_current(folder, corpus, tokenizer):
        _say("info", f"reusing the tokens in {folder}")
        return folder
    built = build_token_store(corpus, tokenizer, folder, log=_say)
    _say(
        "info",
        f"{built.store.num_documents:,} documents, {built.store.num_tokens:,} tokens by {built.encoder} in {folder}",
    )
    return folder


def _is_current(folder: Path, corpus: CorpusStore, tokenizer: Tokenizer) -> bool:
    try:
        found = TokenStore.open(folder)
        if (found.corpus_sha256, found.tokenizer_sha256) != (corpus.sha256, tokenizer.digest):
            return False
        found.check_digests()
    except ContractError:
        return False  # none, or not a whole one: it is built anew
    return True


def _point_at_manifest(corpus: Path) -> None:
    manifest = corpus.with_name(layout.CORPUS_MANIFEST)
    if corpus.name == layout.CORPUS and manifest.is_file():
        _say(
            "warning",
            f"{corpus} is read as one document; --corpus-manifest {manifest} would tell where its documents begin, "
            "so that whole ones can be held out",
        )


def _say(level: str, message: str) -> None:
    print(message if level == "info" else f"{level}: {message}", file=sys.stderr)
