"""Scale presets pass their own preflight."""

from typing import Any

import pytest
from picochat_contract.model_size import num_parameters, vocab_size
from picochat_contract.preflight import PreflightReport, PreflightStatus
from picochat_contract.preflight_judge import judge
from picochat_contract.scales import SCALES
from picochat_contract.spec import RunSpec, parse_mapping
from support.preflight import fitting_facts, preflight_config

PARAMETERS = {  # about as many as the shapes that the mission describes
    "pico": 459e3,
    "small": 1.122e6,
    "medium": 3.456e6,
    "mps-local": 1.055e6,
    "climbmix-pilot": 5.821e6,
    "h100-pilot": 15.54e6,
    "h100-100m": 106.97e6,
    "h100-100m-ddp8": 106.97e6,
    "h200-1b-ddp8": 1.1241e9,
}
TRIALS = {"smoke", "demo"}  # too short for anything but to show that the parts work


def judged(raw: dict[str, Any], changes: dict[str, Any] | None = None) -> PreflightReport:
    config = preflight_config(raw)
    return judge(config, fitting_facts(config, changes))


def parameters(spec: RunSpec) -> int:
    return num_parameters(spec.base.model, vocab_size(spec.tokenizer))


def test_every_preset_is_here_under_its_name() -> None:
    assert set(SCALES) == {*PARAMETERS, *TRIALS}


@pytest.mark.parametrize("scale", SCALES)
def test_every_preset_is_ready_on_a_corpus_and_a_machine_that_fit(scale: str) -> None:
    report = judged({"scale": scale})
    assert report.status is PreflightStatus.READY, report.summary


@pytest.mark.parametrize("scale", SCALES)
def test_no_preset_is_blocked_where_only_a_corpus_is_given(scale: str) -> None:
    dataset = {"sources": [{"type": "file", "path": "corpus"}], "chat": None, "eval": None}
    report = judged({"scale": scale, "dataset": dataset}, {"external": {"arc": 0}})
    assert report.status is not PreflightStatus.BLOCKED, report.summary
    assert {check.id for check in report.warnings} <= {"default_tuning_data", "external_eval"}


@pytest.mark.parametrize("scale", PARAMETERS)
def test_shapes_are_those_of_the_mission(scale: str) -> None:
    assert parameters(parse_mapping({"scale": scale})) == pytest.approx(PARAMETERS[scale], rel=0.07)


@pytest.mark.parametrize("scale", PARAMETERS)
def test_presets_plan_about_twenty_tokens_per_parameter(scale: str) -> None:
    assert 19.8 <= float(judged({"scale": scale}).budget["planned_param_data_ratio"] or 0) <= 21.5


@pytest.mark.parametrize("scale", SCALES)
def test_a_preset_is_blocked_where_its_corpus_is_empty(scale: str) -> None:
    report = judged({"scale": scale}, {"corpus": {"num_documents": 0, "num_characters": 0, "num_bytes": 0}})
    assert report.status is PreflightStatus.BLOCKED


@pytest.mark.parametrize("scale", [name for name in SCALES if name.startswith("h")])
def test_presets_for_gpus_are_blocked_without_one(scale: str) -> None:
    report = judged({"scale": scale}, {"machine": {"gpus": []}})
    assert "device" in [check.id for check in report.blocking]


@pytest.mark.parametrize("scale", [name for name in SCALES if name.endswith("-ddp8")])
def test_presets_for_eight_ranks_are_blocked_with_one(scale: str) -> None:
    report = judged({"scale": scale, "resources": {"nproc_per_node": 1}})
    assert "ddp_scale_launch" in [check.id for check in report.blocking]


@pytest.mark.parametrize("scale", sorted(TRIALS))
def test_trials_are_short_runs_and_the_rest_are_not_smaller(scale: str) -> None:
    assert judged({"scale": scale}).budget["long_run"] is False
