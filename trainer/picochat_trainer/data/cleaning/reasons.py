"""Why a document is not in the corpus. The names stand in manifests and reports."""

from enum import StrEnum


class Reason(StrEnum):
    EMPTY_TEXT = "empty_text"  # nothing is left after cleaning
    TOO_SHORT = "too_short"  # fewer characters than min_characters
    BELOW_MIN_SCORE = "below_min_score"
    LANGUAGE = "language"  # not one of the languages, or not surely enough
    PII = "pii"  # holds personal data
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    WEIGHT = "weight"  # its source's weight is below 1 and the text's hash was drawn out
    LIMIT = "limit"  # the first document over its source's limit; what follows it was not read
