"""The one normal form in which prompts and texts are compared: word tokens after Unicode NFKC and case folding.

In scripts that put no spaces between words (Chinese, Japanese, Thai) every character is a token. An arithmetic sign between two digits is kept, so that `12 + 3` and `12 - 3` differ; all other punctuation goes.
"""

import re
import unicodedata

_SIGN = re.compile(r"(?<=\d)\s*([-+*/^%<>=\u00d7\u00f7\u2212])\s*(?=\d)")
_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|(?<=\d )[-+*/^%<>=\u00d7\u00f7\u2212](?= \d)")


def words(text: str) -> list[str]:
    """Tokens of `text` in normal form."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _TOKEN.findall(_SIGN.sub(r" \1 ", folded))


def normal_form(text: str) -> str:
    """`words(text)` joined by single spaces; equal prompts have equal normal forms."""
    return " ".join(words(text))
