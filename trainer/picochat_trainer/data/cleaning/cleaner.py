"""One document through every step of cleaning, in this order: characters, boilerplate lines, runs of equal lines, length,
quality, language, personal data. The quality is that of the text as it came, without the lines that were removed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from picochat_contract.data_configs import CleaningConfig

from picochat_trainer.data.cleaning.characters import Normalised, normalise
from picochat_trainer.data.cleaning.language import check_languages, language_of
from picochat_trainer.data.cleaning.lines import without_lines, without_runs
from picochat_trainer.data.cleaning.personal_data import (
    PersonalData,
    check_phone_library,
    find_personal_data,
    mask_personal_data,
)
from picochat_trainer.data.cleaning.reasons import Reason
from picochat_trainer.data.quality import Quality, measure_quality


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleaned:
    """A document after cleaning."""

    text: str
    """Without blank lines around it; also of a document that is dropped."""
    reason: Reason | None
    """Why it is dropped, or None."""
    quality: Quality
    num_control: int = 0
    num_replacement: int = 0
    num_zero_width: int = 0
    num_repeated_lines: int = 0
    """Removed."""
    num_boilerplate_lines: int = 0
    """Removed."""
    personal: Counter[PersonalData] = field(default_factory=Counter)
    """Masked, or found where the document is dropped for it."""


def check_libraries(config: CleaningConfig) -> None:
    """Raise `missing_dependency` or `invalid_value` before a long build begins, not in the middle of it."""
    if config.languages:
        check_languages(config.languages)
    if config.pii != "keep":
        check_phone_library()


def clean_documents(
    texts: Sequence[str],
    config: CleaningConfig,
    *,
    min_score: float = 0,
    frequent: NDArray[np.uint64] | None = None,
) -> list[Cleaned]:
    """Clean each text; `frequent` is the sorted array of digests of the lines that count as boilerplate."""
    normalised = [normalise(text, config.unicode) for text in texts]
    bodies, removed = [document.text for document in normalised], [0] * len(normalised)
    if frequent is not None:
        bodies, removed = without_lines(bodies, frequent)
    return [
        _clean(body, document, num_boilerplate, config, min_score)
        for body, document, num_boilerplate in zip(bodies, normalised, removed, strict=True)
    ]


def _clean(
    text: str, normalised: Normalised, num_boilerplate: int, config: CleaningConfig, min_score: float
) -> Cleaned:
    num_repeated = 0
    if config.repeated_lines:
        text, num_repeated = without_runs(text)
    text = text.strip("\n").rstrip()
    quality = measure_quality(text, num_broken=normalised.num_control + normalised.num_replacement)
    reason, personal = _reason(text, quality, config, min_score), Counter[PersonalData]()
    if reason is None and config.pii == "mask":
        text, personal = mask_personal_data(text)
    elif reason is None and config.pii == "drop":
        personal = Counter(kind for _, _, kind in find_personal_data(text))
        reason = Reason.PII if personal else None
    return Cleaned(
        text=text,
        reason=reason,
        quality=quality,
        num_control=normalised.num_control,
        num_replacement=normalised.num_replacement,
        num_zero_width=normalised.num_zero_width,
        num_repeated_lines=num_repeated,
        num_boilerplate_lines=num_boilerplate,
        personal=personal,
    )


def _reason(text: str, quality: Quality, config: CleaningConfig, min_score: float) -> Reason | None:
    if not text.strip():
        return Reason.EMPTY_TEXT
    if len(text) < config.min_characters:
        return Reason.TOO_SHORT
    if quality.score < min_score:
        return Reason.BELOW_MIN_SCORE
    if config.languages:
        code, probability = language_of(text)
        if code not in config.languages or probability < config.min_language_probability:
            return Reason.LANGUAGE
    return None
