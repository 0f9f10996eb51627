"""Text to token ids and back, for every stage and for serving. Wraps a Hugging Face `tokenizer.json`.

What it adds: special-token text in user data is never encoded as a special id, every token has its exact bytes
(so bits per byte are exact), and chats are built from parts with a loss mask.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tokenizers
from picochat_contract.canonical import sha256_hex
from picochat_contract.errors import Code, ContractError
from tokenizers import pre_tokenizers

from picochat_trainer.tokenizer.chat_template import ROLES, Message, turns
from picochat_trainer.tokenizer.special import BOS, IM_END, IM_START, PAD

TrainOn = Literal["last", "all"]

_FALLBACK_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Tokenizer:
    """Immutable after loading; safe to share between threads."""

    def __init__(self, backend: tokenizers.Tokenizer, *, digest: str, name: str = "tokenizer.json") -> None:
        # Not stored in tokenizer.json, so it has to be set at every load: user text never becomes a control token.
        backend.encode_special_tokens = True
        self._backend = backend
        self.digest = digest
        """sha256 of tokenizer.json."""
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self.bos_id = self._special_id(BOS, name)
        self.im_start_id = self._special_id(IM_START, name)
        self.im_end_id = self._special_id(IM_END, name)
        self.pad_id = self._special_id(PAD, name)

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Load `tokenizer.json`, or the one in the folder `path`."""
        file = Path(path)
        file = file / "tokenizer.json" if file.is_dir() else file
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"no tokenizer at {file}: expected a tokenizer.json; run the tokenizer stage or `picochat tok train`",
                param=str(file),
            ) from error
        try:
            backend = tokenizers.Tokenizer.from_str(raw.decode())
        except Exception as error:  # the library raises bare Exception for every kind of bad content
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"{file} is not a Hugging Face tokenizer.json: {error}; train the tokenizer again",
                param=str(file),
            ) from error
        return cls(backend, digest=sha256_hex(raw), name=str(file))

    def to_json(self) -> str:
        """The content of tokenizer.json, for libraries that read it."""
        content: str = self._backend.to_str()
        return content

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. Adds nothing, and reads `<|im_start|>` and the like as ordinary characters."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in parallel threads."""
        encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [item.ids for item in encoded]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int], *, skip_special: bool = True) -> bytes:
        """Exact bytes of `ids`, also where they end inside a character."""
        table = self.token_bytes if skip_special else self._shown_bytes
        return b"".join([table[id] for id in ids])

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """Bytes that each id stands for; empty for special tokens, which are no text."""
        return [b"" if id in self.special_ids else raw for id, raw in enumerate(self._shown_bytes)]

    @property
    def special_tokens(self) -> dict[str, int]:
        """Id of each special token by its text, which user text never becomes."""
        return {BOS: self.bos_id, IM_START: self.im_start_id, IM_END: self.im_end_id, PAD: self.pad_id}

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self.special_tokens.values())

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        train_on: TrainOn = "all",
    ) -> tuple[list[int], list[int]]:
        """Ids and loss mask of a chat, equal in text to the chat template.

        The mask is 1 on tokens to be learned: the text of each assistant's turn, or of the last one, and the
        `<|im_end|>` that ends it.
        """
        ids: list[int] = []
        mask: list[int] = []
        chat = turns(messages, tools)
        last = max((i for i, (role, _) in enumerate(chat) if role == "assistant"), default=-1)
        for i, (role, text) in enumerate(chat):
            header, content = self._turn_parts(role, text)
            learned = int(role == "assistant" and (train_on == "all" or i == last))
            ids += [self.im_start_id, *header, *content, self.im_end_id, *self._newline]
            mask += [0] * (1 + len(header)) + [learned] * (len(content) + 1) + [0] * len(self._newline)
        if add_generation_prompt:
            ids += [self.im_start_id, *self._assistant_header]
            mask += [0] * (1 + len(self._assistant_header))
        return ids, mask

    def _turn_parts(self, role: str, text: str) -> tuple[list[int], list[int]]:
        if role not in ROLES:
            raise ContractError(
                Code.INVALID_VALUE, f"unknown role {role!r}; known: {', '.join(ROLES)}", param="role"
            )
        if role == "assistant":
            # Apart from its header, so that training sees the very ids that generation starts from.
            return self._assistant_header, self.encode(text)
        return self.encode(f"{role}\n{text}"), []

    @cached_property
    def _newline(self) -> list[int]:
        return self.encode("\n")

    @cached_property
    def _assistant_header(self) -> list[int]:
        return self.encode("assistant\n")

    @cached_property
    def _shown_bytes(self) -> list[bytes]:
        """Bytes of each id, with special tokens as their text."""
        characters = _byte_of_character() if self._is_byte_level else None
        table = [b""] * self.vocab_size
        for token, id in self._backend.get_vocab(with_added_tokens=True).items():
            if id in self.special_ids:
                table[id] = token.encode()
            elif characters is not None:
                table[id] = bytes(characters[character] for character in token)
            else:
                fallback = _FALLBACK_BYTE.fullmatch(token)
                table[id] = bytes([int(fallback[1], 16)]) if fallback else token.encode()
        return table

    @property
    def _is_byte_level(self) -> bool:
        return self._backend.pre_tokenizer is not None

    def _special_id(self, token: str, name: str) -> int:
        id = self._backend.token_to_id(token)
        if id is None:
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"{name} has no token {token!r}: expected a tokenizer made by picochat; train it again",
                param=name,
            )
        return int(id)


def _byte_of_character() -> dict[str, int]:
    """The byte behind each character of the ByteLevel alphabet.

    Printable Latin-1 characters stand for themselves; the other bytes follow in order from U+0100
    (GPT-2's bytes_to_unicode).
    """
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    own = {chr(byte): byte for byte in range(256) if chr(byte) in alphabet}
    others = [byte for byte in range(256) if chr(byte) not in own]
    shifted = {chr(0x100 + offset): byte for offset, byte in enumerate(others)}
    return own | shifted
