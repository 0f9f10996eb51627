"""`scale plan`: shapes, laws and limits of a plan, and that preflight has nothing against it."""

from typing import Any

import pytest
from picochat_contract.batch_size import DERIVED, law_batch
from picochat_contract.errors import SpecError
from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight_judge import judge
from picochat_contract.preflight_plan import PLAN_RULES
from picochat_contract.scale_planner import (
    FULL,
    WARMUP_SHARE,
    ScaleRequest,
    nanochat_batch,
    parse_count,
    plan_scale,
)
from picochat_contract.spec import parse_mapping, validated
from support.preflight import OWN_DATA, fitting_facts, preflight_config

BILLION: dict[str, Any] = {
    "target_params": 1_130_000_000,
    "aspect_ratio": 85,
    "head_dim": 128,
    "vocab_size": 32_768,
    "context_size": 2_048,
    "world_size": 8,
    "device": "h200",
}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("100m", 100_000_000),
        ("2.5b", 2_500_000_000),
        ("2.5B", 2_500_000_000),
        ("524,288", 524_288),
        ("524_288", 524_288),
        ("8192", 8_192),
        ("1e9", 1_000_000_000),
        ("1.5k", 1_500),
        ("2t", 2 * 10**12),
    ],
)
def test_counts_are_read_as_people_write_them(text: str, count: int) -> None:
    assert parse_count(text, "target_params") == count


@pytest.mark.parametrize("text", ["", "m", "-5m", "5 m b", "5q", "1.2.3", "nan"])
def test_other_words_are_no_counts(text: str) -> None:
    with pytest.raises(SpecError, match=r"expected a number such as 100m"):
        parse_count(text, "target_params")


def test_a_hundred_million_is_the_mission_s_shape() -> None:
    plan = plan_scale(ScaleRequest(target_params=10**8))
    model = plan.model
    assert (model.n_layer, model.n_embd, model.n_head, model.num_kv_heads) == (16, 768, 12, 4)
    assert plan.figures.parameters == 106_982_144
    assert plan.target_tokens == 20 * plan.figures.parameters
    assert model.has_stock_class


def test_a_billion_with_wide_heads_is_the_other_one() -> None:
    model = plan_scale(ScaleRequest(**BILLION)).model
    assert (model.n_layer, model.n_embd, model.n_head, model.num_kv_heads) == (24, 2048, 16, 4)


def test_the_step_is_as_near_to_the_law_as_whole_micro_batches_allow() -> None:
    plan = plan_scale(ScaleRequest(target_params=10**8))
    micro = 8 * 512
    assert plan.law_batch_tokens == round(law_batch(plan.target_tokens)) and plan.batch_source == DERIVED
    assert abs(plan.figures.tokens_per_step - plan.law_batch_tokens) <= micro / 2
    assert plan.figures.planned_tokens == pytest.approx(plan.target_tokens, rel=1e-3)


def test_the_rule_beside_the_law_is_nanochat_s() -> None:
    assert nanochat_batch(1_156_000_000) == 1 << 19  # where it was measured
    assert nanochat_batch(2 * 1_156_000_000) == pytest.approx((1 << 19) * 2**0.383, rel=1e-6)


def test_what_is_given_is_kept() -> None:
    request = ScaleRequest(depth=6, grad_accum_steps=3, per_device_batch_size=5, attn_backend="flash")
    base = plan_scale(request).spec["base"]
    assert (base["model"]["n_layer"], base["grad_accum_steps"], base["device_batch_size"]) == (6, 3, 5)
    assert base["attn_backend"] == "flash"


@pytest.mark.parametrize("rows", [8, None])
def test_tokens_per_step_that_are_given_are_planned_with_and_stay_in_the_spec(rows: int | None) -> None:
    request = ScaleRequest(
        target_params=10**8, world_size=2, global_batch_tokens=3 * 2**16, per_device_batch_size=rows
    )
    plan = plan_scale(request)
    assert plan.figures.tokens_per_step == 3 * 2**16 and plan.batch_source == "given"
    assert plan.figures.planned_tokens == pytest.approx(plan.target_tokens, rel=1e-3)
    assert plan.spec["base"]["global_batch_tokens"] == 3 * 2**16
    assert "grad_accum_steps" not in plan.spec["base"]
    assert parse_mapping(plan.spec).base_config == plan.base


def test_tokens_alone_choose_a_model_that_they_train_about_once() -> None:
    plan = plan_scale(ScaleRequest(dataset_tokens=2 * 10**9))
    assert plan.epochs == pytest.approx(1, rel=0.3)
    assert plan_scale(ScaleRequest(depth=4)).epochs is None


def test_as_many_rows_as_fit_are_a_power_of_two_and_fill_the_device_no_further_than_preflight_likes() -> None:
    plan = plan_scale(ScaleRequest(**BILLION, per_device_batch_size=None))
    rows = plan.spec["base"]["device_batch_size"]
    assert rows > 1 and rows & (rows - 1) == 0
    assert plan.figures.memory.total <= FULL * plan.figures.device_memory_bytes


@pytest.mark.parametrize(
    ("device", "world_size", "checkpointing", "strategy"),
    [
        ("h200", 8, None, None),
        ("h100", 8, True, None),
        ("rtx 4090", 8, True, "fsdp"),
        ("h100", 1, True, None),
    ],
)
def test_a_plan_saves_no_more_memory_than_it_must(
    device: str, world_size: int, checkpointing: bool | None, strategy: str | None
) -> None:
    plan = plan_scale(ScaleRequest(**{**BILLION, "device": device, "world_size": world_size}))
    assert plan.spec["base"].get("gradient_checkpointing") == checkpointing
    assert plan.spec["resources"].get("distributed_strategy") == strategy
    assert not any(note.startswith("memory") for note in plan.notes)


REQUESTS: list[dict[str, Any]] = [
    {"target_params": 10**8},
    {"target_params": 3 * 10**8, "world_size": 8, "per_device_batch_size": None},
    {"depth": 8, "gate_profile": "research"},
    {"dataset_tokens": 10**9, "context_size": 1024},
    {"target_params": 5 * 10**6, "vocab_size": 2048, "device": "cpu", "context_size": 256},
    {**BILLION, "per_device_batch_size": None},
]


@pytest.mark.parametrize("request_values", REQUESTS, ids=lambda values: "-".join(map(str, values.values())))
def test_no_rule_of_the_plan_blocks_or_warns(request_values: dict[str, Any]) -> None:
    spec = plan_scale(ScaleRequest(**request_values)).spec
    config = preflight_config({**spec, "dataset": {**OWN_DATA, **spec["dataset"]}})
    report = judge(config, fitting_facts(config))
    rules = {rule.id for rule in PLAN_RULES}
    found = [check for check in report.checks if check.status is not CheckStatus.PASS]
    assert [check.message for check in found if check.id in rules] == []
    assert not report.blocking, report.summary


def test_too_few_tokens_for_a_release_are_said_and_blocked() -> None:
    plan = plan_scale(ScaleRequest(target_params=10**8, target_param_data_ratio=10))
    assert any("blocks skill_release" in note for note in plan.notes)
    config = preflight_config({**plan.spec, "dataset": OWN_DATA})
    blocking = judge(config, fitting_facts(config)).blocking
    assert [check.id for check in blocking] == ["release_token_budget"]


def test_what_fits_no_device_and_what_takes_many_epochs_is_said() -> None:
    plan = plan_scale(ScaleRequest(target_params=10**10, aspect_ratio=128, dataset_tokens=10**9))
    assert [note.partition(":")[0] for note in plan.notes] == ["memory", "learning rate", "corpus"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "nothing says how large"),
        ({"target_params": 10**8, "depth": 8}, "both say how large"),
        ({"target_params": 20_000}, "no depth gives about 20,000 parameters"),
        ({"target_params": 10**6}, "the nearest is depth 1 with 577,856"),
        ({"target_params": 10**8, "target_param_data_ratio": 1e-15}, "target_param_data_ratio: "),
        ({"dataset_tokens": 10**400}, "dataset_tokens: "),
        ({"depth": 4, "global_batch_tokens": 5_000}, "nearest values that fit are 4,096 and 8,192"),
        ({"depth": 4, "global_batch_tokens": 8_192, "grad_accum_steps": 3}, "do not agree"),
        ({"depth": 4, "device": "abacus"}, "unknown device 'abacus'; known: cpu, b200"),
    ],
)
def test_a_request_that_cannot_be_planned_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        plan_scale(validated(ScaleRequest, values))


def test_the_spec_names_no_value_that_a_run_spec_does_not_know() -> None:
    spec = plan_scale(ScaleRequest(target_params=10**8)).spec
    assert parse_mapping(spec).base.max_steps == spec["base"]["max_steps"]


def test_ranks_that_no_machine_holds_are_told_how_to_be_spread() -> None:
    [note] = plan_scale(ScaleRequest(target_params=10**8, world_size=16)).notes
    assert note.startswith("ranks: 16") and "resources.nnodes" in note and "rdzv_endpoint" in note
    assert plan_scale(ScaleRequest(target_params=10**8, world_size=8)).notes == ()


def test_a_count_that_no_float_holds_is_refused() -> None:
    with pytest.raises(SpecError, match="expected a number such as 100m"):
        parse_count("1e999", "target_params")


@pytest.mark.parametrize(
    ("ratio", "least_warmup", "share"),
    [
        (200.0, 40, WARMUP_SHARE),  # thousands of steps
        (0.2, 40, None),  # hundreds, of which that share would be too few
    ],
)
def test_the_warm_up_is_a_share_of_a_long_plan_and_never_less_than_a_run_without_one_derives(
    ratio: float, least_warmup: int, share: float | None
) -> None:
    base = plan_scale(ScaleRequest(target_params=10**7, target_param_data_ratio=ratio)).spec["base"]
    steps, warmup = base["max_steps"], base["warmup_steps"]
    if share is None:
        assert (warmup, warmup > WARMUP_SHARE * steps) == (least_warmup, True), steps
    else:
        assert warmup == round(share * steps) > least_warmup
