"""A corpus on disk as the dataset stage leaves it, small enough for corpus.txt alone."""

import json
from collections.abc import Sequence
from pathlib import Path


def write_corpus(run_dir: Path, documents: Sequence[str]) -> None:
    """corpus.txt and its manifest; document i is `document-i` with the id `id-i`."""
    text, spans = "", []
    for index, document in enumerate(documents):
        start = len(text)
        text += document
        span = {"document_id": f"id-{index}", "path": f"document-{index}"}
        spans.append({**span, "char_start": start, "char_end": len(text)})
        text += "\n\n"
    (run_dir / "corpus.txt").write_text(text, encoding="utf-8", newline="")
    manifest = {
        "format": "picochat-corpus",
        "version": 2,
        "shards": [],
        "stats": {"num_documents": len(documents)},
        "documents": spans,
    }
    (run_dir / "corpus_manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
