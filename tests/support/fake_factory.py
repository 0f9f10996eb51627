"""Stage processes without a trainer: `fake_factory.py STAGE --config FILE --out RUN`.

The dataset stage lays the uploaded files (without any, its eval leaks), honesty counts eval lines that are also chat lines, preflight writes the
facts that follow from it, and any other stage writes one file.
"""

import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from picochat_contract import layout
from picochat_contract.layout import kind_of

from support.measured import leaky_facts, preflight_json, sound_facts

RUN = Path(sys.argv[sys.argv.index("--out") + 1])
JOB = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
STAGE = RUN / "stages" / JOB["stage"]


def dataset() -> dict[str, bytes]:
    config = JOB["config"]
    corpus = [uploaded(source) for source in config["sources"]]
    return {
        layout.CORPUS_MANIFEST: json.dumps({"shards": [], "text": b"".join(corpus).decode()}).encode(),
        layout.CORPUS_REPORT: f"# Corpus\n{len(corpus)} files\n".encode(),
        layout.CHAT: uploaded(config["chat"]),
        layout.EVAL: uploaded(config["eval"]),
    }


def honesty() -> dict[str, bytes]:
    chat, evaluation = ((RUN / path).read_text().splitlines() for path in (layout.CHAT, layout.EVAL))
    findings = [
        {
            "pair": "sft_vs_eval",
            "measure": "normalised",
            "target": {"id": f"eval:{number}", "path": None, "line": number},
            "place": {"id": f"sft:{chat.index(line) + 1}", "path": None, "line": chat.index(line) + 1},
            "span_text": line,
            "fix": "remove the row",
        }
        for number, line in enumerate(evaluation, 1)
        if line in chat
    ]
    report = {
        "status": "blocked" if findings else "ready",
        "summary": f"{len(findings)} of {len(evaluation)} eval prompts are SFT prompts",
        "contamination_matrix": {"pairs": []},
        "findings": findings,
        "findings_omitted": 0,
    }
    return {layout.HONESTY: json.dumps(report).encode()}


def preflight() -> dict[str, bytes]:
    is_leaky = json.loads((RUN / layout.HONESTY).read_text())["findings"]
    facts = (leaky_facts if is_leaky else sound_facts)(JOB["inputs"])
    return {layout.PREFLIGHT: preflight_json(JOB["config"], facts)}


def other() -> dict[str, bytes]:
    return {f"{JOB['stage']}/made.txt": JOB["stage"].encode()}


def uploaded(reference: dict[str, Any] | None) -> bytes:
    """The bytes of an upload; one line, always the same, where nothing was uploaded."""
    if not reference or "digest" not in reference:
        return b"generated"
    return (RUN / "sources" / reference["digest"]).read_bytes()


def described(path: str, content: bytes) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"path": path, "sha256": sha256, "size_bytes": len(content), "kind": kind_of(path).value}


def main() -> None:
    made = {"dataset": dataset, "honesty": honesty, "preflight": preflight}.get(JOB["stage"], other)()
    for path, content in made.items():
        (RUN / path).parent.mkdir(parents=True, exist_ok=True)
        (RUN / path).write_bytes(content)
    manifest = {
        "stage": JOB["stage"],
        "fingerprint": JOB["fingerprint"],
        "code_version": "fake",
        "created_at": datetime.now(UTC).isoformat(),
        "duration_seconds": 0.1,
        "outputs": [described(path, content) for path, content in made.items()],
    }
    (STAGE / "manifest.tmp").write_text(json.dumps(manifest))
    (STAGE / "manifest.tmp").replace(STAGE / "manifest.json")


if __name__ == "__main__":
    main()
