"""One pass over documents that finds every item of an index in them."""

from collections.abc import Iterable

from picochat_trainer.data.contamination.index import ItemIndex
from picochat_trainer.data.contamination.matching import match_document
from picochat_trainer.data.contamination.measures import Variant, measures
from picochat_trainer.data.contamination.patterns import Pattern
from picochat_trainer.data.contamination.results import Finding, ItemResult, ScanResult
from picochat_trainer.data.contamination.tally import PatternTally, Place
from picochat_trainer.data.normalize import words


def scan(index: ItemIndex, documents: Iterable[tuple[str, str]], *, workers: int = 1) -> ScanResult:
    """Look for the items in documents, each an (id, text). Reads them once, in order, in bounded memory.

    The result is the same for every number of worker processes.
    """
    rules = measures(index.near_threshold)
    tallies = [PatternTally(pattern, rules) for pattern in index.patterns]
    num_documents = num_characters = 0
    for number, (document_id, text) in enumerate(documents):
        num_documents += 1
        num_characters += len(text)
        for match in match_document(index, number, text):
            tallies[match.pattern].add(match, document_id)
    measured = [tally.finish() for tally in tallies]
    items, findings, omitted = {}, [], 0
    for item, number in zip(index.items, index.pattern_of_item, strict=True):
        pattern, tally = index.patterns[number], tallies[number]
        of_variant = {
            part.variant: found for part, found in zip(pattern.parts, measured[number], strict=True)
        }
        items[item.key] = ItemResult(
            key=item.key,
            searchable=bool(pattern.parts),
            prompt=of_variant.get(Variant.PROMPT),
            prompt_answer=of_variant.get(Variant.PROMPT_ANSWER),
            num_documents=tally.num_documents,
        )
        findings += [_finding(item.key, pattern, place) for place in tally.places]
        omitted += tally.num_documents - len(tally.places)
    return ScanResult(
        items=items,
        findings=tuple(findings),
        findings_omitted=omitted,
        measures=rules,
        num_documents=num_documents,
        num_characters=num_characters,
        num_not_searchable=sum(not item.searchable for item in items.values()),
    )


def _finding(key: str, pattern: Pattern, place: Place) -> Finding:
    part = pattern.parts[place.part]
    text = pattern.prompt if part.variant is Variant.PROMPT else f"{pattern.prompt}\n{pattern.answer}"
    share = len(text) / max(1, len(words(text)))
    return Finding(
        item=key,
        variant=part.variant,
        place=place.document_id,
        document=place.document,
        kind=place.kind,
        measure=place.measure,
        value=place.value,
        item_span=(int(place.first * share), min(len(text), int((place.last + 1) * share) + 1)),
        text_span=(place.span.start, place.span.end),
        text=place.span.text,
    )
