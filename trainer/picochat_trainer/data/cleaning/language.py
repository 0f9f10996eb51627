"""The language of a text, by py3langid's naive Bayes over byte n-grams (97 languages, the model is in the package)."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from picochat_contract.errors import Code, ContractError

SAMPLE_CHARACTERS: Final = 600
"""Read at the beginning and in the middle: more does not change the answer, and the walk is plain Python."""


def check_languages(codes: Sequence[str]) -> None:
    """Raise `missing_dependency` or, for a code that the model does not know, `invalid_value`."""
    known = set(_identifier().labels)
    if unknown := [code for code in codes if code not in known]:
        raise ContractError(
            Code.INVALID_VALUE,
            f"cleaning.languages: {', '.join(unknown)} cannot be recognised; expected ISO 639-1 codes out of "
            f"{', '.join(sorted(known))}",
            param="dataset.cleaning.languages",
        )


def language_of(text: str) -> tuple[str, float]:
    """ISO 639-1 code of the likeliest language and its probability; a text without letters is of low probability."""
    sample = text
    if len(text) > 2 * SAMPLE_CHARACTERS:
        middle = len(text) // 2
        sample = f"{text[:SAMPLE_CHARACTERS]}\n{text[middle : middle + SAMPLE_CHARACTERS]}"
    code, probability = _identifier().classify(sample)
    return str(code), float(probability)


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # optional, and slow to load
    except ImportError as error:
        raise ContractError(
            Code.MISSING_DEPENDENCY,
            "cleaning.languages needs py3langid: pip install 'picochat[filters]'",
            param="dataset.cleaning.languages",
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
