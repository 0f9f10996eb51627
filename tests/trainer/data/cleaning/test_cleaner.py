"""One document through all steps: each reason trips on its own, and what was done is counted."""

from typing import Any

import numpy as np
import pytest
from picochat_contract.data_configs import CleaningConfig
from picochat_trainer.data.cleaning.cleaner import Cleaned, clean_documents
from picochat_trainer.data.cleaning.lines import line_digests
from picochat_trainer.data.cleaning.personal_data import PersonalData
from picochat_trainer.data.cleaning.reasons import Reason

GOOD = "\n".join(f"Sentence number {number} tells something new about the harbour." for number in range(40))


def cleaned(text: str, *, min_score: float = 0, **config: Any) -> Cleaned:
    return clean_documents([text], CleaningConfig(**config), min_score=min_score)[0]


@pytest.mark.parametrize(
    ("text", "config", "reason"),
    [
        (GOOD, {}, None),
        (" \n\u200b\n", {}, Reason.EMPTY_TEXT),
        ("short", {"min_characters": 6}, Reason.TOO_SHORT),
        ("short", {"min_score": 80}, Reason.BELOW_MIN_SCORE),
        (GOOD, {"languages": ("de",)}, Reason.LANGUAGE),
        (GOOD, {"languages": ("en",)}, None),
        ("This is it", {"languages": ("en",), "min_language_probability": 0.9}, Reason.LANGUAGE),
        (GOOD + "\nby jane@example.org", {"pii": "drop"}, Reason.PII),
        (GOOD, {"pii": "drop"}, None),
    ],
)
def test_each_reason_drops_what_it_should(text: str, config: dict[str, Any], reason: Reason | None) -> None:
    assert cleaned(text, **config).reason is reason


def test_masking_keeps_the_document_and_counts() -> None:
    found = cleaned("ask jane@example.org or joe@example.org", pii="mask")
    assert (found.text, found.reason) == ("ask <EMAIL> or <EMAIL>", None)
    assert found.personal[PersonalData.EMAIL] == 2


def test_lines_and_characters_are_counted_by_kind() -> None:
    frequent = line_digests(["All rights reserved"])
    text = "\n\na\x07\na\u200b\nAll rights reserved\nb\nb\n"
    found = clean_documents([text], CleaningConfig(), frequent=frequent)[0]
    assert found.text == "a\nb"
    assert (found.num_control, found.num_zero_width) == (1, 1)
    assert (found.num_boilerplate_lines, found.num_repeated_lines) == (1, 2)


def test_removed_control_characters_still_cost_quality() -> None:
    assert "control_characters" in cleaned(GOOD + "\x00").quality.flags
    assert "\x00" not in cleaned(GOOD + "\x00").text


def test_switches_leave_the_text_alone() -> None:
    text = "a\na\ncafe\u0301\u200b"
    assert cleaned(text, unicode="keep", repeated_lines=False).text == text


def test_a_batch_is_cleaned_document_by_document() -> None:
    texts = [GOOD, "", "same\nsame", GOOD]
    frequent = np.sort(line_digests(["same"]))
    together = clean_documents(texts, CleaningConfig(), frequent=frequent)
    assert together == [clean_documents([text], CleaningConfig(), frequent=frequent)[0] for text in texts]
