"""The token store that a command works on: the one that was named, or one built from a corpus. No torch."""

import sys
from pathlib import Path

from picochat_contract import layout
from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store


def build_tokens(
    corpus: Path | None, corpus_manifest: Path | None, tokenizer_path: Path, out_dir: Path
) -> Path:
    """Build <out_dir>/tokens from the corpus, unless it holds just these tokens already; return the folder."""
    if corpus is None:
        raise ContractError(
            Code.INVALID_VALUE,
            "neither --corpus nor --tokens was given; name a text to train on or a token store to reuse",
            param="--corpus",
        )
    store = CorpusStore.of(corpus, corpus_manifest)
    tokenizer = Tokenizer.load(tokenizer_path)
    folder = out_dir / layout.TOKENS_DIR
    if _is_current(folder, store, tokenizer):
        _say("info", f"reusing the tokens in {folder}")
        return folder
    built = build_token_store(store, tokenizer, folder, log=_say)
    _say(
        "info",
        f"{built.store.num_documents:,} documents, {built.store.num_tokens:,} tokens by {built.encoder} in {folder}",
    )
    return folder


def _is_current(folder: Path, corpus: CorpusStore, tokenizer: Tokenizer) -> bool:
    try:
        found = TokenStore.open(folder)
    except ContractError:
        return False  # none, or not a whole one: it is built anew
    return (found.corpus_sha256, found.tokenizer_sha256) == (corpus.sha256, tokenizer.digest)


def _say(level: str, message: str) -> None:
    print(message if level == "info" else f"{level}: {message}", file=sys.stderr)
