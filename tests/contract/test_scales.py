"""Scale presets pass their own preflight."""

from typing import Any

import pytest
from picochat_contract.preflight import PreflightReport, PreflightStatus
from picochat_contract.preflight_judge import judge
from picochat_contract.scales import SCALES
from picochat_contract.scales_facts import scale_facts
from picochat_contract.spec import parse_mapping
from support.preflight import fitting_facts, preflight_config

PARAMETERS = {  # about as many as the shapes that the mission describes
    "pico": 459e3,
    "small": 1.122e6,
    "medium": 3.456e6,
    "mps-local": 1.055e6,
    "climbmix-pilot": 5.821e6,
    "h100-pilot": 15.54e6,
    "h100-100m": 106.97e6,
    "h100-100m-seq": 106.97e6,
    "h100-100m-ddp8": 106.97e6,
    "h200-1b-ddp8": 1.1241e9,
    "h200-1b-ddp8-seq": 1.1241e9,
}
GPT2, RELU2, SWIGLU = (
    ("layernorm", "learned", "gelu"),
    ("rmsnorm", "rope", "relu2"),
    ("rmsnorm", "rope", "swiglu"),
)
SHAPES = {  # context, width, query and key/value heads, layers, norm and position and activation
    "smoke": (128, 32, 4, 4, 1, GPT2),
    "tiny": (128, 64, 4, 4, 2, GPT2),
    "small-local": (256, 96, 4, 4, 3, GPT2),
    "pico": (256, 96, 4, 4, 3, GPT2),
    "small": (512, 128, 4, 4, 4, GPT2),
    "medium": (512, 192, 6, 6, 6, RELU2),
    "mps-local": (512, 128, 4, 4, 4, RELU2),
    "climbmix-pilot": (512, 192, 6, 6, 6, RELU2),
    "h100-pilot": (512, 384, 8, 2, 8, SWIGLU),
    "h100-100m": (512, 768, 12, 4, 16, SWIGLU),
    "h100-100m-seq": (512, 768, 12, 4, 16, SWIGLU),
    "h100-100m-ddp8": (512, 768, 12, 4, 16, SWIGLU),
    "h200-1b-ddp8": (2048, 2048, 16, 4, 24, SWIGLU),
    "h200-1b-ddp8-seq": (2048, 2048, 16, 4, 24, SWIGLU),
}
TRIALS = {"smoke", "demo", "tiny", "small-local"}  # too short for anything but to show that the parts work


def judged(raw: dict[str, Any], changes: dict[str, Any] | None = None) -> PreflightReport:
    config = preflight_config(raw)
    return judge(config, fitting_facts(config, changes))


@pytest.mark.parametrize(("scale", "base", "sft"), [("tiny", 300, 600), ("small-local", 800, 1_200)])
def test_steps_of_these_trials_are_those_of_the_mission(scale: str, base: int, sft: int) -> None:
    spec = parse_mapping({"scale": scale})
    assert (spec.base.max_steps, spec.sft.max_steps) == (base, sft)


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
def test_there_are_as_many_parameters_as_in_the_mission(scale: str) -> None:
    assert scale_facts(scale).figures.parameters == pytest.approx(PARAMETERS[scale], rel=0.01)


@pytest.mark.parametrize("scale", SHAPES)
def test_shapes_are_those_of_the_mission(scale: str) -> None:
    model = parse_mapping({"scale": scale}).base.model
    parts = (model.norm_type, model.position_encoding, model.activation)
    heads = (model.n_head, model.num_kv_heads)
    assert (model.sequence_len, model.n_embd, *heads, model.n_layer, parts) == SHAPES[scale]


@pytest.mark.parametrize("scale", [name for name in SCALES if name.endswith("-seq")])
def test_a_seq_variant_differs_only_in_its_residual_and_has_a_stock_class(scale: str) -> None:
    sequential, parallel = (
        parse_mapping({"scale": name}).model_dump() for name in (scale, scale.removesuffix("-seq"))
    )
    assert (sequential["base"]["model"].pop("parallel_residual"), sequential.pop("scale")) == (False, scale)
    assert parallel["base"]["model"].pop("parallel_residual") is True
    assert parallel.pop("scale") == scale.removesuffix("-seq")
    assert sequential == parallel
    assert parse_mapping({"scale": scale}).base.model.has_stock_class
    assert not parse_mapping({"scale": scale.removesuffix("-seq")}).base.model.has_stock_class


@pytest.mark.parametrize("scale", SCALES)
def test_a_preset_fits_the_device_that_it_is_named_after_and_its_time_is_known(scale: str) -> None:
    facts = scale_facts(scale)
    assert 0 < facts.figures.memory.total <= 0.85 * facts.figures.device_memory_bytes
    assert facts.device == (scale.partition("-")[0] if scale.startswith("h") else "cpu")
    assert facts.figures.hours is not None and facts.figures.hours < 40


@pytest.mark.parametrize("scale", SCALES)
def test_figures_of_a_preset_are_those_of_its_preflight(scale: str) -> None:
    budget, figures = judged({"scale": scale}).budget, scale_facts(scale).figures
    assert budget["estimated_parameters"] == figures.parameters
    assert budget["base_planned_tokens"] == figures.planned_tokens
    assert budget["planned_param_data_ratio"] == figures.tokens_per_parameter
    if scale.startswith("h"):
        assert budget["memory_bytes"] == figures.memory.total


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


@pytest.mark.parametrize("scale", [name for name in SCALES if "-ddp8" in name])
def test_presets_for_eight_ranks_are_blocked_with_one(scale: str) -> None:
    report = judged({"scale": scale, "resources": {"nproc_per_node": 1}})
    assert "ddp_scale_launch" in [check.id for check in report.blocking]


@pytest.mark.parametrize("scale", sorted(TRIALS))
def test_trials_are_short_runs_and_the_rest_are_not_smaller(scale: str) -> None:
    assert judged({"scale": scale}).budget["long_run"] is False
