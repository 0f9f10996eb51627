"""The pages know every field of what the trainer writes today: none of them is left at its default."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.manifest import StageJob
from picochat_contract.spec import validated
from picochat_contract.stages import STAGES, StageName
from picochat_server.pages.corpus import CorpusReport
from picochat_server.pages.honesty import AuditReport, EvalScores, HonestyReport
from picochat_trainer.context import StageContext
from picochat_trainer.honesty.data_files import read_data_files
from picochat_trainer.honesty.report import Trained, audit_report
from picochat_trainer.process import STAGE_MODULES
from picochat_trainer.scoring.clean import clean_subsets
from pydantic import BaseModel
from support.small_corpus import documents

OF_THE_KIND = {"path", "name", "label", "license", "duplicate_of", "similarity"}
"""Fields that a source or a dropped document has or has not."""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder after dataset and honesty, with one eval prompt in the corpus and a near duplicate."""
    texts = dict(documents(12))
    (tmp_path / "texts").mkdir()
    for path, text in texts.items():
        (tmp_path / "texts" / Path(path).name).write_text(text)
    near = texts["notes/note3.txt"].replace("ribbons", "flowers")
    (tmp_path / "texts" / "near.txt").write_text(near)
    item = {
        "user": "Where does the merchant keep all of the old maps of the coast?",
        "must_include": ["in the harbour"],
    }
    (tmp_path / "eval.jsonl").write_text(json.dumps(item))
    (tmp_path / "texts" / "leak.txt").write_text(f"Asked and answered: {item['user']} Nobody knows.")
    sources = [{"type": "file", "path": str(tmp_path / "texts"), "license": "CC0-1.0"}]
    run_eval = {"type": "file", "path": str(tmp_path / "eval.jsonl")}
    run_stage(tmp_path, "dataset", {"sources": sources, "eval": run_eval, "sft_rows": 32})
    run_stage(tmp_path, "honesty", {})
    return tmp_path


def run_stage(folder: Path, name: str, config: dict[str, Any]) -> None:
    stage = StageName(name)
    context = StageContext(folder, StageJob(stage=stage, config=config, paths={}))
    module = importlib.import_module(f"picochat_trainer.stages.{STAGE_MODULES[stage]}")
    try:
        module.run(context, validated(STAGES[stage].config, config))
    finally:
        context.events.close()


def left_at_default(model: BaseModel, name: str = "") -> Iterator[str]:
    yield from (
        f"{name}.{field}" for field in type(model).model_fields if field not in model.model_fields_set
    )
    for field, value in model:
        values = (
            list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        )
        for inner in values:
            if isinstance(inner, BaseModel):
                yield from left_at_default(inner, f"{name}.{field}")


def test_the_honesty_report_is_shown_whole(run_dir: Path) -> None:
    report = HonestyReport.model_validate(json.loads((run_dir / layout.HONESTY).read_text()))
    assert report.findings and report.corpus_prompt_hits == 1
    assert set(report.contamination_matrix.pairs[0].measures) == set(report.measures)
    spans = {".findings.target.span", ".findings.place.span"}  # shared prompts have none
    assert set(left_at_default(report)) <= spans


def test_the_audit_report_is_shown_whole(run_dir: Path) -> None:
    data = read_data_files(lambda path: run_dir / path)
    trained = Trained(
        subject="a",
        base_subject="b",
        held_out_documents=frozenset(),
        chat_lines=frozenset({1, 2}),
        num_documents=data.corpus.num_documents or 1,
    )
    config = validated(STAGES[StageName.HONESTY].config, {})
    written = audit_report(data, trained, {"eval:1": "a generated text"}, config, workers=1)
    report = AuditReport.model_validate(json.loads(json.dumps(written)))
    assert report.findings and report.trained_prompt_hits == 1
    assert set(left_at_default(report)) == set()


def test_the_corpus_manifest_is_shown_whole(run_dir: Path) -> None:
    report = CorpusReport.model_validate(json.loads((run_dir / layout.CORPUS_MANIFEST).read_text()))
    assert [row.path for row in report.dropped] != []
    assert report.licenses.largest["CC0-1.0"].documents == report.stats.num_documents
    missing = {name for name in left_at_default(report) if name.rsplit(".", 1)[1] not in OF_THE_KIND}
    assert missing == set()


def test_scores_by_measure_are_what_the_eval_stage_writes() -> None:
    subsets = clean_subsets([], {"near": frozenset({1})})
    score = {"num_examples": 0, "num_passed": 0, "pass_rate": 0.0, "low": 0.0, "high": 1.0}
    written = {"overall": score, "clean": score, "eval_sha256": "e", "clean_subsets": subsets}
    assert list(left_at_default(EvalScores.model_validate(written))) == []
