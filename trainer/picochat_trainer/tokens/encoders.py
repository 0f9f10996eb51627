"""What turns many texts into ids: `tokenizers` as the reference, tiktoken and gigatoken where they are installed.

All three are built from the same tokenizer.json. The fast ones are given no special tokens at all, so text such as
`<|im_start|>` can only become ordinary ids. `proof.py` compares their ids with the reference in every build.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from picochat_contract.errors import Code, ContractError

from picochat_trainer.tokenizer import Tokenizer

EncoderChoice = Literal["auto", "tokenizers", "tiktoken", "gigatoken"]
Log = Callable[[str, str], None]
"""Takes a level (info, warning) and a message."""

REFERENCE: Final = "tokenizers"
FASTEST_FIRST: Final = ("gigatoken", "tiktoken")
THREADS: Final = 8  # tiktoken's; it takes them for one batch at a time


class EncoderError(Exception):
    """This encoder cannot be used for this tokenizer or text; the message says why. The reference still can."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Ids of several texts, one after another."""

    ids: NDArray[np.unsignedinteger]
    lengths: NDArray[np.int64]
    """Number of ids of each text."""

    def rows(self, indices: Iterable[int] | None = None) -> list[NDArray[np.unsignedinteger]]:
        """Ids of some of the texts, or of all."""
        ends = np.cumsum(self.lengths)
        chosen = range(len(self.lengths)) if indices is None else indices
        return [self.ids[ends[i] - self.lengths[i] : ends[i]] for i in chosen]


class Encoder(Protocol):
    name: str
    version: str

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Ids of plain texts, without BOS; raise EncoderError where the library gives up on one."""
        ...


class ReferenceEncoder:
    """Hugging Face `tokenizers`, which tokenizer.json is made for."""

    name = REFERENCE

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.version = version("tokenizers")

    def encode(self, texts: Sequence[str]) -> Encoded:
        return _joined(self._tokenizer.encode_batch(texts))


class TiktokenEncoder:
    """tiktoken over the merges of a byte-level BPE; an id is its rank, since merges got their ids in order."""

    name = "tiktoken"

    def __init__(self, tokenizer: Tokenizer) -> None:
        import tiktoken  # optional, extra `fast`

        self.version = version("tiktoken")
        ranks = {raw: id for id, raw in enumerate(tokenizer.token_bytes) if id not in tokenizer.special_ids}
        self._encoding = tiktoken.Encoding(
            "picochat", pat_str=_split_pattern(tokenizer), mergeable_ranks=ranks, special_tokens={}
        )

    def encode(self, texts: Sequence[str]) -> Encoded:
        with failures_explained(self.name):
            return _joined(self._encoding.encode_ordinary_batch(list(texts), num_threads=THREADS))


class GigatokenEncoder:
    """gigatoken, from tokenizer.json without its special tokens."""

    name = "gigatoken"

    def __init__(self, tokenizer: Tokenizer) -> None:
        import gigatoken  # optional, extra `fast`

        self.version = version("gigatoken")
        content = json.loads(tokenizer.to_json())
        content["added_tokens"] = []
        try:
            self._tokenizer = gigatoken.Tokenizer.from_json(json.dumps(content))
        except (ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise EncoderError(f"gigatoken cannot read this tokenizer ({reason})") from error

    def encode(self, texts: Sequence[str]) -> Encoded:
        with failures_explained(self.name):
            layout: Any = self._tokenizer.encode_batch(list(texts)).layout  # an awkward list of uint32 rows
        offsets = np.asarray(layout.offsets.data, dtype=np.int64)
        ids = np.asarray(layout.content.data)[offsets[0] : offsets[-1]]
        return Encoded(ids=ids, lengths=np.diff(offsets))


ENCODERS: Final[dict[str, Callable[[Tokenizer], Encoder]]] = {
    "gigatoken": GigatokenEncoder,
    "tiktoken": TiktokenEncoder,
    REFERENCE: ReferenceEncoder,
}


def encoders(choice: EncoderChoice, tokenizer: Tokenizer, log: Log) -> Iterator[Encoder]:
    """Encoders to try, in order; the last is always the reference.

    `auto` passes over what is not installed. A choice that is not installed is `missing_dependency`.
    """
    for name in FASTEST_FIRST if choice == "auto" else [choice]:
        if name == REFERENCE:
            continue
        try:
            yield ENCODERS[name](tokenizer)
        except ModuleNotFoundError as error:
            if choice != "auto":
                raise ContractError(
                    Code.MISSING_DEPENDENCY,
                    f"tokenizer.encoder is {name}, which is not installed: pip install 'picochat[fast]'",
                    param="tokenizer.encoder",
                ) from error
        except EncoderError as error:
            log("info", f"{name} is not used: {error}")
    yield ReferenceEncoder(tokenizer)


@contextmanager
def failures_explained(name: str) -> Iterator[None]:
    """Failures of a library as EncoderError. A Rust panic, such as tiktoken's on a megabyte of spaces, is no Exception."""
    try:
        yield
    except BaseException as error:
        if (
            not isinstance(error, ValueError | TypeError | RuntimeError)
            and type(error).__name__ != "PanicException"
        ):
            raise
        raise EncoderError(f"{name} gave up on a text ({error})") from error


def _joined(rows: Sequence[Sequence[int]]) -> Encoded:
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    ids = np.empty(int(lengths.sum()), dtype=np.uint32)
    end = 0
    for row in rows:
        start, end = end, end + len(row)
        ids[start:end] = row
    return Encoded(ids=ids, lengths=lengths)


def _split_pattern(tokenizer: Tokenizer) -> str:
    """The pattern that cuts text into pieces before merging."""
    try:
        parts = json.loads(tokenizer.to_json())["pre_tokenizer"]["pretokenizers"]
        return str(next(part["pattern"]["Regex"] for part in parts if part["type"] == "Split"))
    except (KeyError, TypeError, StopIteration) as error:
        raise EncoderError("tiktoken needs a byte-level BPE with a split pattern") from error
