"""From `corpus.txt` to token arrays: whole documents are held out first, then each side is encoded.

Documents come from the spans in `corpus_manifest.json`. Documents with equal text stay on one side, canaries go
into the training side only, and BOS stands before each document.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from picochat_contract.errors import Code, ContractError

Tokens = NDArray[np.unsignedinteger]

_HOLDOUT_OVERSHOOT = (
    1.25  # a document that would make validation larger than this times its target is passed over
)
_CANARY_SALT = "picochat canary"


class TextTokenizer(Protocol):
    """What training needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int: ...
    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...


@dataclass(frozen=True, kw_only=True)
class Corpus:
    text: str
    documents: tuple[str, ...]
    labels: tuple[str, ...]
    """One name per document, for the report."""


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A made-up secret: `prefix` is given to the model, `secret` must not come back."""

    prefix: str
    secret: str

    @property
    def text(self) -> str:
        return f"{self.prefix}{self.secret}\n"


@dataclass(frozen=True, kw_only=True)
class TokenSet:
    """Documents one after another, each begun by BOS."""

    tokens: Tokens
    offsets: NDArray[np.int64]
    """Index of the first token of each document, and the length at the end."""

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, kw_only=True)
class Split:
    train: TokenSet
    val: TokenSet
    mode: Literal["document", "window"]
    note: str | None
    """Why the mode is not the one asked for, or None."""
    train_text: str
    """Without canaries."""
    val_labels: tuple[str, ...]
    canaries: tuple[Canary, ...]


def read_corpus(corpus: Path, manifest: Path | None) -> Corpus:
    """Read the corpus and cut it at the manifest's spans; without a manifest it is one document."""
    text = _read_text(corpus)
    if not text.strip():
        raise ContractError(Code.CORPUS_EMPTY, f"{corpus} holds no text", param=str(corpus))
    if manifest is None or not manifest.exists():
        return Corpus(text=text, documents=(text,), labels=(corpus.name,))
    spans = _spans(manifest, len(text))
    return Corpus(
        text=text,
        documents=tuple(text[start:end] for _, start, end in spans),
        labels=tuple(label for label, _, _ in spans),
    )


def split_corpus(
    corpus: Corpus,
    tokenizer: TextTokenizer,
    *,
    val_fraction: float,
    mode: Literal["document", "window"],
    seed: int,
    canary_count: int,
) -> Split:
    """Hold out validation text and encode both sides."""
    canaries = make_canaries(canary_count, seed)
    planted = [canary.text for canary in canaries]
    held_out = hold_out_documents(corpus.documents, val_fraction, seed) if mode == "document" else set()
    if held_out:
        train = [text for i, text in enumerate(corpus.documents) if i not in held_out]
        val = [text for i, text in enumerate(corpus.documents) if i in held_out]
        return Split(
            train=encode_documents(_with_canaries(train, planted, seed), tokenizer),
            val=encode_documents(val, tokenizer),
            mode="document",
            note=None,
            train_text="\n\n".join(train),
            val_labels=tuple(label for i, label in enumerate(corpus.labels) if i in held_out),
            canaries=canaries,
        )
    train_texts, val_texts = _split_each_document(corpus.documents, val_fraction)
    return Split(
        train=encode_documents(_with_canaries(train_texts, planted, seed), tokenizer),
        val=encode_documents(val_texts, tokenizer),
        mode="window",
        note=None
        if mode == "window"
        else "the corpus has only one distinct document, so its last part is held out: validation text and "
        "training text come from the same document",
        train_text="\n\n".join(train_texts),
        val_labels=(),
        canaries=canaries,
    )


def hold_out_documents(documents: Sequence[str], val_fraction: float, seed: int) -> set[int]:
    """Pick whole documents for validation: about `val_fraction` of the characters; empty if there is only one."""
    groups = _equal_documents(documents)
    if len(groups) < 2:
        return set()
    order = list(groups)
    random.Random(f"{seed} holdout").shuffle(order)
    target = val_fraction * sum(map(len, documents))
    sizes = {key: sum(len(documents[i]) for i in groups[key]) for key in order}
    chosen: list[str] = []
    taken = 0
    for key in order[:-1]:  # the last one always stays in training
        if taken + sizes[key] <= _HOLDOUT_OVERSHOOT * target:
            chosen.append(key)
            taken += sizes[key]
        if taken >= target:
            break
    chosen = chosen or [min(order, key=lambda key: sizes[key])]
    return {i for key in chosen for i in groups[key]}


def encode_documents(documents: Sequence[str], tokenizer: TextTokenizer) -> TokenSet:
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    parts: list[Tokens] = [np.empty(0, dtype=dtype)]
    lengths = [0]
    for ids in tokenizer.encode_batch(list(documents)):
        parts.append(np.asarray([tokenizer.bos_id, *ids], dtype=dtype))
        lengths.append(len(ids) + 1)
    return TokenSet(tokens=np.concatenate(parts), offsets=np.cumsum(lengths, dtype=np.int64))


def make_canaries(count: int, seed: int) -> tuple[Canary, ...]:
    """Secrets of nine digits (30 bits): no model can guess one."""
    canaries = []
    for index in range(count):
        digest = hashlib.sha256(f"{_CANARY_SALT} {seed} {index}".encode()).digest()
        digits = f"{int.from_bytes(digest[:8], 'big') % 10**9:09d}"
        secret = "-".join((digits[:3], digits[3:6], digits[6:]))
        canaries.append(Canary(prefix=f"The secret number of canary {index + 1} is ", secret=secret))
    return tuple(canaries)


def _with_canaries(documents: list[str], canaries: list[str], seed: int) -> list[str]:
    """Put each canary, as a document of its own, at a random place."""
    rng = random.Random(f"{seed} canary places")
    for canary in canaries:
        documents = list(documents)
        documents.insert(rng.randrange(len(documents) + 1), canary)
    return documents


def _equal_documents(documents: Sequence[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(documents):
        groups.setdefault(hashlib.sha256(text.strip().encode()).hexdigest(), []).append(index)
    return groups


def _split_each_document(documents: Sequence[str], val_fraction: float) -> tuple[list[str], list[str]]:
    """Hold out the end of each document."""
    train, val = [], []
    for text in documents:
        cut = len(text) - round(len(text) * val_fraction)
        train.append(text[:cut])
        val.append(text[cut:])
    return [text for text in train if text], [text for text in val if text]


def _read_text(path: Path) -> str:
    try:
        # newline="": spans count characters as they are in the file
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError as error:
        raise ContractError(
            Code.CORPUS_MISSING, f"there is no corpus at {path}; give --corpus a text file", param=str(path)
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE, f"{path} cannot be read as UTF-8 text: {error}", param=str(path)
        ) from error


def _spans(manifest: Path, num_characters: int) -> list[tuple[str, int, int]]:
    try:
        documents = json.loads(manifest.read_text(encoding="utf-8"))["documents"]
        spans = [
            (str(d.get("path") or d.get("label") or i), int(d["char_start"]), int(d["char_end"]))
            for i, d in enumerate(documents)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{manifest} is no corpus manifest: expected documents[] with char_start and char_end ({error!r})",
            param=str(manifest),
        ) from error
    if not spans:
        raise ContractError(Code.CORPUS_EMPTY, f"{manifest} lists no documents", param=str(manifest))
    for label, start, end in spans:
        if not 0 <= start <= end <= num_characters:
            raise ContractError(
                Code.INPUT_CHANGED,
                f"{manifest}: document {label!r} spans characters {start}-{end}, the corpus has "
                f"{num_characters}; build both again from the same sources",
                param=str(manifest),
            )
    return spans
