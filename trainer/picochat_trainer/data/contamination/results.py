"""What a scan found: the measures of every item, and findings that name both places."""

from dataclasses import dataclass
from enum import StrEnum

from picochat_trainer.data.contamination.measures import Measure, Name, Variant


class FindingKind(StrEnum):
    """How much of an item stands in a document, strongest first. Each document and item have at most one finding."""

    EXACT = "exact"  # all of it, character by character
    NORMALISED = "normalised"  # all of it, but for case, punctuation and Unicode variants
    NEAR = "near"  # most of it in order: an edited copy
    OVERLAP = "overlap"  # n-grams, beyond the threshold of a published rule


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """An item and a place in a document that hold the same; checked on the text itself."""

    item: str
    """Key of the item."""
    variant: Variant
    place: str
    """Id of the document."""
    document: int
    """Its 0-based place in the stream of documents."""
    kind: FindingKind
    measure: Name
    """The rule that it breaks; of several the one that says most."""
    value: float
    """What that rule measured in this document; over all documents for `palm70_8`."""
    item_span: tuple[int, int]
    """First and last + 1 character in `item_text`: the prompt, and for the variant `prompt_answer` a line feed and the
    answer after it, both without white space around them."""
    text_span: tuple[int, int]
    """First and last + 1 character in the document's text."""
    text: str
    """What stands there, cut after 400 characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The measures of one variant of an item, over all documents. Shares are 0 to 1."""

    exact: bool = False
    normalised: bool = False
    ngram_any_13: bool = False
    palm70_8: float = 0.0
    tulu50_8: float = 0.0
    """Of the document that covers most."""
    longest_match_8: float = 0.0
    near: float = 0.0
    """Of the best alignment; 0 where no candidate was found."""

    def value(self, name: str) -> float:
        return float(getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemResult:
    """All measures of one item."""

    key: str
    searchable: bool
    """Whether it is long enough to mean anything in a document (see `measures.MIN_TOKENS`)."""
    prompt: Measured | None
    """None where the prompt is too short to search for."""
    prompt_answer: Measured | None
    """None where the item has no answer, or both together are too short."""
    num_documents: int
    """Documents with a finding."""

    def measured(self, variant: str) -> Measured | None:
        return self.prompt if variant == Variant.PROMPT else self.prompt_answer


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanResult:
    """One pass over all documents; the same for every number of workers and every cut of the text."""

    items: dict[str, ItemResult]
    findings: tuple[Finding, ...]
    """In the order of the items; at most `MAX_PLACES` an item, the strongest."""
    findings_omitted: int
    measures: dict[str, Measure]
    """The rules, with this scan's threshold for `near`."""
    num_documents: int
    num_characters: int
    num_not_searchable: int
    """Items that are too short to be looked for."""

    def hits(self, measure: str, variant: str) -> list[str]:
        """Keys of the items that the measure calls contaminated."""
        rule = self.measures[measure]
        found = ((key, result.measured(variant)) for key, result in self.items.items())
        return [key for key, measured in found if measured and rule.hit(measured.value(measure))]
