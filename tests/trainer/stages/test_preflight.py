"""The preflight stage: it measures the run folder, and succeeds whatever it finds."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.configs import PreflightConfig
from picochat_contract.evidence import PreflightEvidence
from picochat_contract.preflight import PreflightRecord, PreflightStatus
from picochat_contract.preflight_judge import judge
from picochat_contract.scales import SCALES
from picochat_contract.spec import expand, parse_mapping
from picochat_contract.stages import StageName
from picochat_trainer.atomic import file_sha256
from picochat_trainer.preflight.measuring import chat_facts, eval_facts
from picochat_trainer.tuning.release_skills import generate_eval, generate_sft
from picochat_trainer.tuning.rows import to_jsonl
from support.preflight import fitting_facts, preflight_config

SMALL = {"sft_rows": 40, "eval_rows": 20}


def config_of(raw: dict[str, Any]) -> dict[str, Any]:
    return expand(parse_mapping(raw))[StageName.PREFLIGHT].model_dump(mode="json")


def written(folder: Path) -> PreflightRecord:
    return PreflightRecord.model_validate_json((folder / layout.PREFLIGHT).read_bytes())


@pytest.fixture
def measured(tmp_path: Path, run_stage: Any) -> Path:
    """A run folder after the dataset and honesty stages."""
    run_stage("dataset", SMALL)
    run_stage("honesty")
    return tmp_path


def test_a_smoke_run_on_its_own_data_goes_through(measured: Path, run_stage: Any) -> None:
    metrics = run_stage("preflight", config_of({"scale": "smoke", "dataset": SMALL}))
    report = written(measured)
    assert report.status is not PreflightStatus.BLOCKED, report.summary
    assert (metrics["num_blocking"], metrics["num_checks"]) == (0, len(report.checks))
    facts = report.facts
    assert facts.corpus.sha256 == file_sha256(measured / layout.CORPUS_MANIFEST)
    assert facts.chat is not None and facts.chat.sha256 == file_sha256(measured / layout.CHAT)
    assert facts.eval is not None and facts.eval.sha256 == file_sha256(measured / layout.EVAL)
    assert facts.honesty is not None and facts.honesty.sha256 == file_sha256(measured / layout.HONESTY)
    assert "# Preflight" in (measured / layout.PREFLIGHT_MD).read_text()


def test_the_gate_can_read_it_and_the_server_judge_it_again(measured: Path, run_stage: Any) -> None:
    config = config_of({"scale": "smoke", "dataset": SMALL})
    run_stage("preflight", config)
    raw = json.loads((measured / layout.PREFLIGHT).read_text())
    PreflightEvidence.model_validate(raw)
    report = written(measured)
    again = judge(PreflightConfig.model_validate(config), report.facts)
    assert again.model_dump() == report.model_dump(exclude={"facts"})


def test_a_plan_that_is_blocked_is_a_result_and_no_failure(measured: Path, run_stage: Any) -> None:
    metrics = run_stage("preflight", config_of({"scale": "medium", "dataset": SMALL}))
    report = written(measured)
    assert report.status is PreflightStatus.BLOCKED and metrics["num_blocking"] > 0
    assert {"sft_rows", "corpus_model_fit"} <= {check.id for check in report.blocking}


def test_a_leak_blocks_unless_it_is_waived(measured: Path, run_stage: Any) -> None:
    prompt = json.loads((measured / layout.EVAL).read_text().splitlines()[3])["user"]
    with (measured / layout.CHAT).open("a") as file:
        file.write(json.dumps({"user": prompt.upper(), "assistant": "Leaked."}) + "\n")
    run_stage("honesty")
    for waived in (False, True):
        spec = {"scale": "smoke", "dataset": SMALL, "preflight": {"allow_leaky_eval": waived}}
        run_stage("preflight", config_of(spec))
        report = written(measured)
        assert "honesty" in [check.id for check in (report.waived if waived else report.blocking)]
        assert (report.status is PreflightStatus.BLOCKED) is not waived


def test_rows_that_changed_after_honesty_looked_are_blocked(measured: Path, run_stage: Any) -> None:
    with (measured / layout.CHAT).open("a") as file:
        file.write(json.dumps({"user": "New?", "assistant": "New."}) + "\n")
    run_stage("preflight", config_of({"scale": "smoke", "dataset": SMALL}))
    assert "honesty_report" in [check.id for check in written(measured).blocking]


@pytest.mark.parametrize("scale", SCALES)
def test_presets_are_ready_with_the_rows_that_they_generate(scale: str, tmp_path: Path) -> None:
    """Only corpus, benchmark and machine are made up."""
    config = preflight_config({"scale": scale})
    assert config.plan is not None
    dataset = config.plan.dataset
    chat, items = tmp_path / "chat.jsonl", tmp_path / "eval.jsonl"
    chat.write_text(to_jsonl(generate_sft(dataset.sft_rows, seed=dataset.seed)))
    items.write_text(to_jsonl(generate_eval(dataset.eval_rows, seed=dataset.seed)))
    rows = {"chat": chat_facts(chat).model_dump(), "eval": eval_facts(items).model_dump()}
    honesty = {"chat_sha256": file_sha256(chat), "eval_sha256": file_sha256(items)}
    facts = fitting_facts(config, {"honesty": honesty})
    report = judge(config, type(facts).model_validate({**facts.model_dump(), **rows}))
    assert report.status is PreflightStatus.READY, report.summary
