"""The contamination matrix: every set of texts looked for in every set that comes before it.

Each reference is read once, for all its targets together. What counts as contaminated is what a named measure says
(`data.contamination.MEASURES`), on the prompt alone and on prompt plus answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from picochat_contract.data_configs import HonestyConfig

from picochat_trainer.data.contamination import (
    Finding,
    ItemIndex,
    ItemResult,
    Measure,
    Measured,
    Variant,
    scan,
)
from picochat_trainer.honesty.texts import TextItem, TextSet

Risk = Literal["high", "medium", "low", "clean", "not_checked"]

HIGH_COVERAGE: Final = 0.80
"""Share of an item's 8-grams, or of its length in one span, that makes a pair `high`."""
MEDIUM_COVERAGE: Final = 0.35


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What of `target` was found in `reference`."""

    reference: str
    target: str
    items: tuple[TextItem, ...]
    results: Mapping[str, ItemResult]
    findings: tuple[Finding, ...]
    findings_omitted: int
    """Further places of items that stand in very many."""
    measures: Mapping[str, Measure]
    num_places: int
    """Documents or rows of the reference that were read."""

    @property
    def name(self) -> str:
        return f"{self.reference}_vs_{self.target}"

    def marked_by(self, measure: str, variant: Variant | None = None) -> list[TextItem]:
        """Items that a measure marks, on one variant or on any."""
        variants = tuple(Variant) if variant is None else (variant,)
        return [item for item in self.items if any(self._marks(item, measure, one) for one in variants)]

    @cached_property
    def contaminated(self) -> list[TextItem]:
        """Items that at least one measure marks."""
        marked = {item.key for name in self.measures for item in self.marked_by(name)}
        return [item for item in self.items if item.key in marked]

    @property
    def num_not_searchable(self) -> int:
        return sum(not result.searchable for result in self.results.values())

    @property
    def not_checked(self) -> str | None:
        """Why nothing was compared; None where something was."""
        if not self.num_places:
            return f"there is nothing in {self.reference} to look in"
        if self.num_not_searchable == len(self.items):
            return f"every one of the {len(self.items)} items is too short to look for"
        return None

    @property
    def risk(self) -> Risk:
        if self.not_checked is not None:
            return "not_checked"
        if any(m.exact or m.normalised for m in self._measured) or self.highest_coverage >= HIGH_COVERAGE:
            return "high"
        if self.contaminated or self.highest_coverage >= MEDIUM_COVERAGE:
            return "medium"
        return "low" if self.highest_coverage > 0 else "clean"

    @property
    def highest_coverage(self) -> float:
        """Of any item: share of its 8-grams, or of its length in one span."""
        return max((max(m.palm70_8, m.longest_match_8) for m in self._measured), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """One entry of `contamination_matrix.pairs`."""
        return {
            "pair": self.name,
            "reference": self.reference,
            "target": self.target,
            "num_targets": len(self.items),
            "num_not_searchable": self.num_not_searchable,
            "num_places": self.num_places,
            "risk": self.risk,
            "reason": self.not_checked,
            "num_contaminated": len(self.contaminated),
            "exact": len(self.marked_by("exact")),
            "normalised": len(self.marked_by("normalised")),
            "near": len(self.marked_by("near")),
            "max_coverage": max((m.palm70_8 for m in self._measured), default=0.0),
            "longest_match": max((m.longest_match_8 for m in self._measured), default=0.0),
            "measures": {
                name: {variant.value: len(self.marked_by(name, variant)) for variant in Variant}
                for name in self.measures
            },
        }

    @cached_property
    def _measured(self) -> list[Measured]:
        found = (result.measured(variant) for result in self.results.values() for variant in Variant)
        return [measured for measured in found if measured is not None]

    def _marks(self, item: TextItem, measure: str, variant: Variant) -> bool:
        measured = self.results[item.key].measured(variant)
        return measured is not None and self.measures[measure].hit(measured.value(measure))


def compare_all(sets: Sequence[TextSet], config: HonestyConfig, *, workers: int) -> list[Pair]:
    """Every pair of `sets`, the earlier one as the reference; each reference is read once."""
    pairs: list[Pair] = []
    for position, reference in enumerate(sets):
        pairs += compare(reference, sets[position + 1 :], config, workers=workers)
    return pairs


def compare(
    reference: TextSet, targets: Sequence[TextSet], config: HonestyConfig, *, workers: int
) -> Iterator[Pair]:
    """Look for the items of all `targets` in one pass over `reference`. A target without items makes no pair."""
    items = [item for target in targets for item in target.items]
    if not items:
        return
    index = ItemIndex([item.item for item in items], near_threshold=config.near_threshold)
    found = scan(index, reference.documents(), workers=workers)
    findings: dict[str, list[Finding]] = {}
    for finding in found.findings:
        findings.setdefault(finding.item, []).append(finding)
    for target in targets:
        if target.items:
            own = [finding for item in target.items for finding in findings.get(item.key, ())]
            results = {item.key: found.items[item.key] for item in target.items}
            num_places = sum(result.num_documents for result in results.values())
            yield Pair(
                reference=reference.name,
                target=target.name,
                items=target.items,
                results=results,
                findings=tuple(own),
                findings_omitted=num_places - len(own),
                measures=found.measures,
                num_places=found.num_documents,
            )
