"""Reports in which every text that comes with data is one text of the test's choice."""

import json

from picochat_contract import layout

from support import reports
from support.finished_run import edited
from support.seeded_runs import blocked_files


def honesty(text: str) -> bytes:
    """A report whose every free text is `text`."""
    place = {"source": text, "id": text, "path": text, "line": 3}
    found = reports.finding(
        1, kind=text, pair=text, measure=text, variant=text, target_text=text, span_text=text
    )
    found |= {"target": place, "place": place, "message": text, "fix": text}
    pair = reports.pair("corpus_vs_eval", 3) | {
        "pair": text,
        "reference": text,
        "target": text,
        "reason": text,
    }
    return edited(
        blocked_files()[layout.HONESTY],
        summary=text,
        findings=[found],
        measures={text: {"threshold": 1, "source": text, "description": text}},
        dirty_eval_lines={text: [1, 2]},
        external_sha256={text: text},
        contamination_matrix={"pairs": [pair]},
    )


def manifest(text: str) -> bytes:
    content = json.loads(blocked_files()[layout.CORPUS_MANIFEST])
    share = {"documents": 1, "characters": 1}
    source = {"type": text, "name": text, "label": text, "license": text, **share}
    content["readiness"]["summary"] = text
    content["readiness"]["checks"][0] |= {"name": text, "message": text}
    content |= {"licenses": {text: share}, "labels": {text: share}, "dropped_counts": {text: 1}}
    content |= {
        "sources": [source],
        "dropped": [{"path": text, "reason": "near_duplicate", "duplicate_of": text}],
    }
    return json.dumps(content).encode()


def memorization(text: str) -> bytes:
    content = reports.memorization()
    content["exposure"]["note"] = text
    content["extraction"]["strata"][0]["occurrences"] = text
    content["extraction"]["examples"][0] |= {"document_id": text, "prefix": text, "text": text}
    return json.dumps(content).encode()
