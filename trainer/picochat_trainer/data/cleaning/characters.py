"""Unicode: one normal form, Unix line ends, and no characters that are invisible junk.

Control characters other than tab and line ends are removed, as are byte order marks inside a text, zero-width spaces,
word joiners and soft hyphens. Joiners that scripts and emoji need (U+200C, U+200D) and marks of direction stay. U+FFFD
stays too: it says that something is lost. All are counted.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final, Literal

Form = Literal["nfc", "nfkc", "keep"]
REPLACEMENT: Final = "\ufffd"
ZERO_WIDTH: Final = ("\ufeff", "\u200b", "\u2060", "\u00ad")
_LINE_ENDS: Final = ("\r\n", "\r", "\v", "\f", "\u0085", "\u2028", "\u2029")
_ASCII_CONTROLS: Final = bytes([*range(9), *range(14, 32), 127])
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_C1_BYTES = re.compile(rb"\xc2[\x80-\x84\x86-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Normalised:
    text: str
    """Encodable as UTF-8: half surrogate pairs are U+FFFD now."""
    num_control: int
    num_replacement: int
    num_zero_width: int


def normalise(text: str, form: Form) -> Normalised:
    """Bring `text` into `form`; `keep` changes only line ends and what UTF-8 cannot hold, and counts the rest."""
    for end in _LINE_ENDS[:2] if form == "keep" else _LINE_ENDS:
        if end in text:
            text = text.replace(end, "\n")
    if text.isascii():
        return _normalise_ascii(text, form)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        text = _SURROGATE.sub(REPLACEMENT, text)
        raw = text.encode()
    num_control = _count_control(text, raw)
    num_zero_width = sum(text.count(character) for character in ZERO_WIDTH)
    if form != "keep":
        if num_control:
            text = _CONTROL.sub("", text)
        if num_zero_width:
            for character in ZERO_WIDTH:
                text = text.replace(character, "")
        text = unicodedata.normalize("NFC" if form == "nfc" else "NFKC", text)
    return Normalised(text, num_control, text.count(REPLACEMENT), num_zero_width)


def count_broken(text: str) -> int:
    """Control characters other than tab and line ends, and U+FFFD."""
    return _count_control(text, text.encode("utf-8", "surrogatepass")) + text.count(REPLACEMENT)


def _count_control(text: str, raw: bytes) -> int:
    # one pass over bytes says whether the slow search over characters has anything to find
    suspicious = len(raw.translate(None, _ASCII_CONTROLS)) < len(raw) or _C1_BYTES.search(raw)
    return len(_CONTROL.findall(text)) if suspicious else 0


def _normalise_ascii(text: str, form: Form) -> Normalised:
    raw = text.encode()
    clean = raw.translate(None, _ASCII_CONTROLS)  # several times quicker than a search for the class
    num_control = len(raw) - len(clean)
    if num_control and form != "keep":
        text = clean.decode("ascii")
    return Normalised(text, num_control, 0, 0)
