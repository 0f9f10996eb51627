"""Honesty reports: data against data before training, and after it what was really trained on and generated."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from picochat_contract.data_configs import HonestyConfig

from picochat_trainer.data.contamination import MEASURES, Finding, Variant
from picochat_trainer.data.contamination.measures import measures
from picochat_trainer.data.normalize import words
from picochat_trainer.data.readiness import Status
from picochat_trainer.honesty import texts
from picochat_trainer.honesty.data_files import DataFiles
from picochat_trainer.honesty.matrix import Pair, compare_all
from picochat_trainer.honesty.prompts import SamePrompt, repeated_prompts, shared_prompts
from picochat_trainer.honesty.texts import TextItem, TextSet
from picochat_trainer.scoring.tally import score_of

COPIED_WORDS: Final = 20
"""Words in a row, about 27 tokens, that make a generated text a copy. Shorter texts cannot be judged."""
SHOWN_TEXT: Final = 300  # characters of a text in a finding
TRAINED: Final = (texts.CORPUS, texts.SFT, texts.PREFERENCES)
"""Sets that a model learns from: only what is found there makes an eval item dirty."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run really trained on, as its reports say."""

    subject: str
    base_subject: str
    held_out_documents: frozenset[str]
    """Document ids on the validation side: never trained on."""
    chat_lines: frozenset[int]
    """Lines of the SFT rows that were trained on: not held out, not too long."""
    num_documents: int


def data_report(data: DataFiles, config: HonestyConfig, *, workers: int) -> dict[str, Any]:
    """Content of `honesty_report.json`."""
    sets = _data_sets(data, texts.corpus_texts(data.corpus), data.chat)
    pairs = compare_all(
        [s for s in sets.values() if s.items or s.name == texts.CORPUS], config, workers=workers
    )
    prompts = texts.eval_prompts(data.eval)
    sft_leaks = shared_prompts(prompts, texts.sft_prompts(data.chat))
    preference_leaks = shared_prompts(prompts, sets[texts.PREFERENCES].items)
    repeats = repeated_prompts(prompts)
    # A whole prompt leaks wherever it stands in a row: system text, tools, any turn, either answer of a pair.
    in_sft = _prompt_hits(pairs, [texts.SFT]) | {leak.item.key for leak in sft_leaks}
    in_preferences = _prompt_hits(pairs, [texts.PREFERENCES]) | {leak.item.key for leak in preference_leaks}
    near = _near_prompts(pairs, known=in_sft | in_preferences)
    counts = {
        "exact_prompt_leaks": len(in_sft),
        "preference_prompt_leaks": len(in_preferences),
        "corpus_prompt_hits": len(_prompt_hits(pairs, [texts.CORPUS])),
        "near_prompt_leaks": len(near),
        "duplicate_eval_prompts": len(repeats),
    }
    status = _data_status(counts, pairs)
    same = [
        *_same_prompt_findings("exact_sft_prompt_leak", "sft_vs_eval", sft_leaks),
        *_same_prompt_findings("exact_preference_prompt_leak", "preferences_vs_eval", preference_leaks),
        *_same_prompt_findings("duplicate_eval_prompt", "eval_vs_eval", repeats),
    ]
    return {
        "status": status,
        "summary": _data_summary(counts, pairs, len(prompts)),
        **data.digests,
        "num_sft": len(data.chat),
        "num_eval": len(data.eval),
        "num_preferences": len(data.preferences),
        "num_external": sum(map(len, data.external.values())),
        "num_documents": data.corpus.num_documents,
        **counts,
        **_comparison(pairs, config, same),
    }


def audit_report(
    data: DataFiles, trained: Trained, generated: Mapping[str, str], config: HonestyConfig, *, workers: int
) -> dict[str, Any]:
    """Content of `audit_report.json`. `generated` maps names such as `eval:12` to what the checkpoint wrote."""
    rows = [row for row in data.chat if row.line in trained.chat_lines]
    corpus = texts.corpus_texts(data.corpus, without=trained.held_out_documents)
    # Preferences are left out: no stage trains on them yet.
    sets = _data_sets(data, corpus, rows)
    del sets[texts.PREFERENCES]
    sets[texts.GENERATED] = texts.generated_texts(generated)
    pairs = compare_all(
        [s for s in sets.values() if s.items or s.name == texts.CORPUS], config, workers=workers
    )
    same = shared_prompts(texts.eval_prompts(data.eval), texts.sft_prompts(rows))
    hits = _prompt_hits(pairs, [texts.CORPUS, texts.SFT]) | {leak.item.key for leak in same}
    copied = _copied(sets[texts.GENERATED].items, pairs)
    score = score_of(copied.values())
    risky = [
        pair.name for pair in pairs if pair.risk == "high" and pair.target in (texts.EVAL, texts.EXTERNAL)
    ]
    status = Status.BLOCKED if hits else Status.CAUTION if risky or score.num_passed else Status.READY
    return {
        "status": status,
        "summary": (
            f"{len(hits)} of {len(data.eval)} eval prompts are in what was trained on; {score.num_passed} of "
            f"{score.num_examples} generated texts of {COPIED_WORDS} words or more copy the corpus"
        ),
        **data.digests,
        "subject": trained.subject,
        "base_subject": trained.base_subject,
        "num_eval": len(data.eval),
        "trained_documents": trained.num_documents - len(trained.held_out_documents),
        "held_out_documents": len(trained.held_out_documents),
        "trained_rows": len(rows),
        "trained_prompt_hits": len(hits),
        "copied_words": COPIED_WORDS,
        "copied": score.model_dump(mode="json"),
        "copied_texts": sorted(name for name, is_copy in copied.items() if is_copy),
        "num_generated": len(sets[texts.GENERATED].items),
        **_comparison(pairs, config, _same_prompt_findings("exact_sft_prompt_leak", "sft_vs_eval", same)),
    }


def _data_sets(data: DataFiles, corpus: TextSet, rows: Sequence[Any]) -> dict[str, TextSet]:
    """In order: a set is looked for in those before it."""
    sets = (
        corpus,
        texts.sft_texts(rows),
        texts.preference_texts(data.preferences),
        texts.eval_texts(data.eval),
        texts.external_texts(data.external),
    )
    return {found.name: found for found in sets}


def _comparison(
    pairs: Sequence[Pair], config: HonestyConfig, same_prompts: list[dict[str, Any]]
) -> dict[str, Any]:
    """What both reports share: measures, matrix, dirty lines and findings."""
    found = [*same_prompts]
    for pair in pairs:
        items = {item.key: item for item in pair.items}
        found += [_finding(pair, items[finding.item], finding) for finding in pair.findings]
    per_pair: dict[str, int] = {}
    listed = []
    for finding in found:
        per_pair[finding["pair"]] = per_pair.get(finding["pair"], 0) + 1
        if per_pair[finding["pair"]] <= config.max_findings:
            listed.append(finding)
    return {
        "measures": {
            name: {
                "threshold": measure.threshold,
                "source": measure.source,
                "description": measure.description,
            }
            for name, measure in measures(config.near_threshold).items()
        },
        "near_threshold": config.near_threshold,
        "contamination_matrix": {"pairs": [pair.to_json() for pair in pairs]},
        "dirty_eval_lines": _dirty_lines(pairs),
        "findings": listed,
        "findings_omitted": len(found) - len(listed) + sum(pair.findings_omitted for pair in pairs),
    }


def _dirty_lines(pairs: Sequence[Pair]) -> dict[str, list[int]]:
    """Lines of the eval file that each measure marks in anything that trains."""
    of_eval = [pair for pair in pairs if pair.target == texts.EVAL and pair.reference in TRAINED]
    return {
        name: sorted({item.line for pair in of_eval for item in pair.marked_by(name)}) for name in MEASURES
    }


def _prompt_hits(pairs: Sequence[Pair], references: Sequence[str]) -> set[str]:
    """Keys of eval items whose whole prompt stands in one of `references`, after normalisation."""
    return {
        item.key
        for pair in pairs
        if pair.target == texts.EVAL and pair.reference in references
        for item in pair.marked_by("normalised", Variant.PROMPT)
    }


def _near_prompts(pairs: Sequence[Pair], known: set[str]) -> set[str]:
    """Keys of eval items with an edited copy among the tuning prompts, apart from `known` leaks."""
    return {
        item.key
        for pair in pairs
        if pair.target == texts.EVAL and pair.reference in (texts.SFT, texts.PREFERENCES)
        for item in pair.marked_by("near", Variant.PROMPT)
    } - known


def _copied(items: Iterable[TextItem], pairs: Sequence[Pair]) -> dict[str, bool]:
    """By key of each generated text that is long enough: does it give back a long span of the corpus?"""
    shares: dict[str, float] = {}
    for pair in pairs:
        if (pair.reference, pair.target) == (texts.CORPUS, texts.GENERATED):
            found = {key: result.measured(Variant.PROMPT) for key, result in pair.results.items()}
            shares = {
                key: measured.longest_match_8 for key, measured in found.items() if measured is not None
            }
    lengths = {item.key: len(words(item.prompt)) for item in items}
    return {
        key: round(shares.get(key, 0.0) * length) >= COPIED_WORDS
        for key, length in lengths.items()
        if length >= COPIED_WORDS
    }


def _data_status(counts: Mapping[str, int], pairs: Sequence[Pair]) -> Status:
    if counts["exact_prompt_leaks"] or counts["preference_prompt_leaks"]:
        return Status.BLOCKED
    judged = [p for p in pairs if p.reference in TRAINED and p.target in (texts.EVAL, texts.EXTERNAL)]
    if any(counts.values()) or any(pair.contaminated for pair in judged):
        return Status.CAUTION
    return Status.READY


def _data_summary(counts: Mapping[str, int], pairs: Sequence[Pair], num_eval: int) -> str:
    dirty = _num_contaminated(pairs, texts.EVAL)
    if not any(counts.values()) and not dirty:
        said = f"none of {num_eval} eval items is in the SFT rows, the preferences or the corpus, or repeated"
    else:
        said = (
            f"of {num_eval} eval prompts {counts['exact_prompt_leaks']} stand in SFT rows, "
            f"{counts['preference_prompt_leaks']} in preference rows, {counts['corpus_prompt_hits']} in the "
            f"corpus, {counts['near_prompt_leaks']} have edited copies among the tuning rows, "
            f"{counts['duplicate_eval_prompts']} are repeated; {dirty} are contaminated by at least one measure"
        )
    external = _num_contaminated(pairs, texts.EXTERNAL)
    return f"{said}; {external} external items are contaminated" if external else said


def _num_contaminated(pairs: Sequence[Pair], target: str) -> int:
    """Items of a set that at least one measure marks in anything that trains."""
    found = [pair.contaminated for pair in pairs if pair.reference in TRAINED and pair.target == target]
    return len({item.key for items in found for item in items})


def _same_prompt_findings(kind: str, pair: str, found: Sequence[SamePrompt]) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "pair": pair,
            "match": "normalised",
            "variant": Variant.PROMPT.value,
            "measure": "normalised",
            "value": 1.0,
            "target": _place(leak.item.key),
            "target_text": leak.item.prompt[:SHOWN_TEXT],
            "place": _place(leak.other.key),
            "span_text": leak.other.prompt[:SHOWN_TEXT],
            "occurrences": leak.occurrences,
            "message": f"the prompt of {leak.item.key} is also the prompt of {leak.other.key}",
            "fix": _fix(pair, leak.other.key),
        }
        for leak in found
    ]


def _finding(pair: Pair, item: TextItem, finding: Finding) -> dict[str, Any]:
    place = _place(finding.place)
    return {
        "kind": f"{pair.target}_in_{pair.reference}",
        "pair": pair.name,
        "match": finding.kind.value,
        "variant": finding.variant.value,
        "measure": finding.measure.value,
        "value": finding.value,
        "target": {**_place(item.key), "span": list(finding.item_span)},
        "target_text": item.text[:SHOWN_TEXT],
        "place": {**place, "span": list(finding.text_span)},
        "span_text": finding.text[:SHOWN_TEXT],
        "occurrences": 1,
        "message": f"{item.key} stands in {finding.place} ({finding.kind}; {finding.measure} {finding.value:.2f})",
        "fix": _fix(pair.name, finding.place),
    }


def _place(key: str) -> dict[str, Any]:
    """`sft:12`, `external/arc:12` or `document_id path` as source, id, path and line."""
    if " " in key:
        document_id, path = key.split(" ", 1)
        return {"source": texts.CORPUS, "id": document_id, "path": path, "line": None}
    source, _, line = key.rpartition(":")
    return {"source": source, "id": key, "path": None, "line": int(line) if line.isdigit() else None}


def _fix(pair: str, place: str) -> str:
    if pair.endswith(f"_vs_{texts.GENERATED}"):
        return "train fewer epochs, or on more and less repeated text"
    if pair == "eval_vs_eval":
        return "keep the prompt once in the eval file"
    return f"remove {place.split(' ', 1)[-1]} from what trains, or replace the item that it gives away"
