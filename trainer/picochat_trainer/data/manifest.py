"""Content of `corpus_manifest.json`, version 2: what lies in a corpus, for programs.

No times and no absolute paths, so that equal input gives an equal file. Long lists are cut and say by how much; the
whole list of what was dropped is `corpus/dropped.parquet`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from picochat_contract.data_configs import FileSource, Source

from picochat_trainer.data.budget import suggest_budget
from picochat_trainer.data.building.tally import Share
from picochat_trainer.data.facts import Corpus
from picochat_trainer.data.readiness import judge_corpus

FORMAT: Final = "picochat-corpus"
VERSION: Final = 2
UNNAMED: Final = ""
"""Key of documents without a label or licence."""


def corpus_manifest(corpus: Corpus, sources: Sequence[Source]) -> dict[str, Any]:
    """The manifest as JSON values."""
    num_files = corpus.stats.num_files
    num_dropped = sum(corpus.dropped_counts.values())
    return {
        "format": FORMAT,
        "version": VERSION,
        "text": corpus.text,
        "text_sha256": corpus.text_sha256,
        "shards": [asdict(shard) for shard in corpus.shards],
        "sources": [
            {
                **described_source(source),
                "documents": corpus.source_shares.get(index, Share()).documents,
                "characters": corpus.source_shares.get(index, Share()).characters,
                "limit_reached": index in corpus.full_sources,
            }
            for index, source in enumerate(sources)
        ],
        "cleaning": {
            **corpus.cleaning.model_dump(mode="json"),
            "min_score": corpus.min_score,
            "counts": corpus.counted,
        },
        "stats": asdict(corpus.stats),
        "licenses": _shares(corpus.licenses),
        "labels": _shares(corpus.labels),
        "quality": {
            "scores": {str(tens): num for tens, num in sorted(corpus.scores.items())},
            "flags": dict(sorted(corpus.flags.items())),
        },
        "readiness": asdict(judge_corpus(corpus)),
        "budget": asdict(suggest_budget(corpus.stats)),
        "documents": list(corpus.documents),
        "documents_omitted": corpus.stats.num_documents - len(corpus.documents),
        "dropped": [_dropped(row) for row in corpus.dropped],
        "dropped_omitted": num_dropped - len(corpus.dropped),
        "dropped_counts": dict(sorted(corpus.dropped_counts.items())),
        "files": [asdict(file) for file in corpus.files],
        "files_omitted": num_files - len(corpus.files),
    }


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """As JSON with one line per entry of a list: the indenting encoder takes ten times as long for 10,000 documents."""
    entries = [f"{json.dumps(key)}: {_lines(value)}" for key, value in manifest.items()]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _compact(value)
    return "[\n" + ",\n".join(f"  {_compact(entry)}" for entry in value) + "\n]"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def described_source(source: Source) -> dict[str, Any]:
    """A source without what is about the machine: of a path only the last part."""
    raw = source.model_dump(mode="json")
    if isinstance(source, FileSource):
        raw["path"] = source.path.rstrip("/").rsplit("/", 1)[-1]
    return raw


def _dropped(row: Mapping[str, Any]) -> dict[str, Any]:
    similarity = row["similarity"]
    return {
        **{key: row[key] for key in ("path", "reason", "quality_score", "duplicate_of")},
        "similarity": None if similarity is None else round(similarity, 4),
    }


def _shares(shares: Mapping[str | None, Share]) -> dict[str, dict[str, int]]:
    return {
        name or UNNAMED: asdict(share)
        for name, share in sorted(shares.items(), key=lambda item: item[0] or "")
    }
