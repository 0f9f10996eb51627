"""What a text is cut into: ids with their bytes and where they stand, in bytes and in characters."""

from dataclasses import dataclass

from picochat_trainer.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One token of a text."""

    id: int
    raw: bytes
    byte_start: int
    char_start: int
    """The character that its first byte belongs to."""
    char_end: int
    """One past the character that its last byte belongs to."""

    @property
    def text(self) -> str:
        """Its bytes as text; those of a part of a character show as U+FFFD."""
        return self.raw.decode("utf-8", errors="replace")


def inspect_text(tokenizer: Tokenizer, text: str) -> list[Piece]:
    """Tokens of a text with their offsets."""
    pieces = []
    raw_text = text.encode()
    byte_start = char_start = 0  # characters that are begun before this byte
    for id in tokenizer.encode(text):
        raw = tokenizer.token_bytes[id]
        begun = sum(byte & 0xC0 != 0x80 for byte in raw_text[byte_start : byte_start + len(raw)])
        inside = bool(raw) and raw_text[byte_start] & 0xC0 == 0x80
        pieces.append(
            Piece(
                id=id,
                raw=raw,
                byte_start=byte_start,
                char_start=char_start - inside,
                char_end=char_start + begun,
            )
        )
        byte_start += len(raw)
        char_start += begun
    return pieces
