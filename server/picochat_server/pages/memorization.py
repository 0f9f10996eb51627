"""What `base/memorization_report.json` says, as the honesty page shows it."""

from typing import Annotated

from picochat_contract.evidence import Score
from pydantic import Field

from picochat_server.pages.stored import Shown


class Exposures(Shown):
    """Secrets that were inserted equally often; 0 times are the controls."""

    repeats: int
    num: int
    median_bits: float | None
    low: float | None = None
    high: float | None = None
    """95 % interval of the median; None of too few secrets."""
    mean_bits: float | None = None
    hits: Score
    """Secrets that came out when they were asked for."""


class Exposure(Shown):
    by_repeats: Annotated[list[Exposures], Field(max_length=50)]
    controls: Exposures
    num_candidates: int
    limit_bits: float
    chance_mean_bits: float
    share_of_training_tokens: float
    note: str | None = None

    @property
    def rows(self) -> list[Exposures]:
        return [*self.by_repeats, self.controls]


class Stratum(Shown):
    """Spans that occur equally often in the training text."""

    occurrences: str
    extractable: Score
    discoverable: Score


class Discovery(Shown):
    samples: int
    probability: float


class Example(Shown):
    """A training span that the model gave back."""

    document_id: str
    occurrences: int
    prefix: str
    text: str


class Extraction(Shown):
    span_tokens: int
    prefix_tokens: int
    discovery: Discovery
    strata: Annotated[list[Stratum], Field(max_length=50)]
    heldout: Stratum
    examples: list[Example] = []

    @property
    def rows(self) -> list[Stratum]:
        return [*self.strata, self.heldout]


class MemorizationReport(Shown):
    exposure: Exposure | None
    """None: no canaries were planted."""
    extraction: Extraction
