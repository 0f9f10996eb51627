"""Tokens of an optimizer step: given one way or the other, or derived, and settled where a spec becomes stage configs."""

import math
from typing import Any

import pytest
from picochat_contract.batch_size import DERIVED, law_batch, law_batch_of_steps, source_in_words, stage_config
from picochat_contract.configs import BaseConfig, BaseSection, PreflightConfig, SftConfig
from picochat_contract.errors import Code, SpecError
from picochat_contract.learning_rates import rows_per_step
from picochat_contract.paid_launch import paid_launch
from picochat_contract.scales import SCALES
from picochat_contract.spec import RunSpec, expand, parse_mapping
from picochat_contract.stages import StageName

MODEL = {"n_layer": 2, "n_head": 2, "n_embd": 64, "sequence_len": 256}
LONG = {"model": MODEL, "device_batch_size": 8, "max_steps": 10_000}  # 59,232 tokens by the law


def base_of(base: dict[str, Any], num_ranks: int = 1) -> BaseConfig:
    """What the base stage gets of a spec."""
    config = expand(parse_mapping({"base": base, "resources": {"nproc_per_node": num_ranks}}))[StageName.BASE]
    assert isinstance(config, BaseConfig)
    return config


def tokens_per_step(config: BaseConfig, num_ranks: int = 1) -> int:
    return rows_per_step(config, num_ranks) * config.model.sequence_len


def refused(base: dict[str, Any], num_ranks: int = 1) -> SpecError:
    with pytest.raises(SpecError) as caught:
        base_of(base, num_ranks)
    assert (caught.value.code, caught.value.param) == (Code.INVALID_VALUE, "base.global_batch_tokens")
    assert caught.value.message.startswith("base.")
    return caught.value


def test_the_law_is_that_of_its_paper() -> None:
    assert law_batch(10**11) == 0.58 * math.pow(10**11, 0.571)


@pytest.mark.parametrize("steps", [1, 480, 10_000, 2**31 - 1])
def test_from_steps_alone_the_batch_is_the_one_that_the_law_gives_for_their_tokens(steps: int) -> None:
    batch = law_batch_of_steps(steps)
    assert law_batch(steps * batch) == pytest.approx(batch, rel=1e-9)


@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 29), (2, 14), (4, 7), (8, 4), (64, 1)])
def test_a_batch_that_is_not_given_comes_as_near_to_the_law_as_whole_passes_allow(
    ranks: int, accumulation: int
) -> None:
    config = base_of(LONG, ranks)
    assert (config.grad_accum_steps, config.batch_source) == (accumulation, "derived")
    if ranks < 64:
        assert abs(tokens_per_step(config, ranks) - law_batch_of_steps(10_000)) <= 8 * 256 * ranks / 2


def test_where_minutes_end_the_training_steps_that_stand_out_of_reach_ask_for_no_batch() -> None:
    config = base_of({**LONG, "max_steps": 2**31 - 1, "max_minutes": 30.0})
    assert (config.grad_accum_steps, config.batch_source) == (1, "one_pass")
    assert "max_minutes" in source_in_words(config)


def test_minutes_leave_a_given_batch_as_it_is() -> None:
    config = base_of({**LONG, "max_minutes": 30.0, "grad_accum_steps": 5})
    assert (config.grad_accum_steps, config.batch_source) == (5, "given")


def test_a_short_run_accumulates_nothing() -> None:
    assert base_of({}).grad_accum_steps == 1
    assert base_of({}).batch_source == "derived"


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_tokens_that_are_given_are_those_of_the_step_on_any_number_of_ranks(ranks: int) -> None:
    config = base_of({**LONG, "global_batch_tokens": 16_384}, ranks)
    assert tokens_per_step(config, ranks) == 16_384
    assert config.batch_source == "given"


def test_accumulation_that_is_given_is_kept() -> None:
    config = base_of({**LONG, "grad_accum_steps": 1})
    assert (config.grad_accum_steps, config.batch_source) == (1, "given")


@pytest.mark.parametrize(
    ("tokens", "ranks", "said"),
    [
        (
            20_000,
            2,
            "8 x 256 x 2 = 4,096 tokens: got 20,000; the nearest values that fit are 16,384 and 20,480",
        ),
        (100, 1, "8 x 256 x 1 = 2,048 tokens: got 100; the least is 2,048"),
    ],
)
def test_tokens_that_are_no_whole_number_of_passes_are_refused_with_those_that_fit(
    tokens: int, ranks: int, said: str
) -> None:
    error = refused({**LONG, "global_batch_tokens": tokens}, ranks)
    assert f"must be a multiple of device_batch_size x sequence_len x ranks = {said}" in error.message


def test_both_may_be_given_where_they_agree_and_not_else() -> None:
    both = {**LONG, "global_batch_tokens": 8_192}
    assert base_of({**both, "grad_accum_steps": 4}).grad_accum_steps == 4
    error = refused({**both, "grad_accum_steps": 3})
    assert "grad_accum_steps 3 and global_batch_tokens 8,192 do not agree" in error.message
    assert "4 forward passes" in error.message and "give one of the two" in error.message


@pytest.mark.parametrize(
    ("batch", "passes", "said"),
    [
        ({"max_steps": 2**31 - 1}, "361,443,611", "derived by Step Law, arXiv 2503.04715"),
        ({"global_batch_tokens": 2**60}, "562,949,953,421,312", "as given"),
    ],
)
def test_more_passes_than_a_config_holds_are_refused(batch: dict[str, Any], passes: str, said: str) -> None:
    message = refused({**LONG, **batch}).message
    assert message.startswith(f"base.grad_accum_steps would be {passes}, and 1,048,576 is the most")
    assert f"tokens, {said}, takes so many forward passes" in message


def test_a_spec_that_was_written_down_and_read_again_derives_the_same() -> None:
    spec = parse_mapping({"base": LONG, "resources": {"nproc_per_node": 2}})
    again = RunSpec.model_validate_json(spec.model_dump_json())
    assert again.base_config == spec.base_config
    assert again.base.grad_accum_steps is None and again.base_config.batch_source == "derived"


def test_preflight_and_the_launch_see_the_batch_that_base_gets() -> None:
    spec = parse_mapping({"base": {**LONG, "max_steps": 100_000}, "resources": {"device": "cuda"}})
    stages = expand(spec)
    base, preflight = stages[StageName.BASE], stages[StageName.PREFLIGHT]
    assert isinstance(base, BaseConfig) and isinstance(preflight, PreflightConfig)
    assert preflight.plan is not None and preflight.plan.base == base
    launch = paid_launch(spec)
    assert launch is not None and launch.planned_tokens == 100_000 * tokens_per_step(base)


def test_a_stopped_run_has_the_batch_of_the_whole_one() -> None:
    assert base_of({**LONG, "stop_after_steps": 3}).grad_accum_steps == base_of(LONG).grad_accum_steps


def test_tokens_that_are_given_take_the_place_of_a_preset_s_accumulation() -> None:
    spec = parse_mapping({"scale": "h100-100m", "base": {"global_batch_tokens": 262_144}})
    assert spec.base_config.grad_accum_steps == 8
    assert parse_mapping({"base": {"global_batch_tokens": 8_192}}).base_config.grad_accum_steps == 2
    derived = parse_mapping({"scale": "h100-100m", "base": {"grad_accum_steps": None}}).base_config
    assert (derived.grad_accum_steps, derived.batch_source) == (9, "derived")


PRESETS = {  # tokens per step; steps, warm-up and rates of a preset are chosen for them
    "smoke": 1_024,
    "demo": 2_048,
    "tiny": 2_048,
    "small-local": 4_096,
    "pico": 2_048,
    "small": 8_192,
    "medium": 16_384,
    "mps-local": 16_384,
    "climbmix-pilot": 32_768,
    "h100-pilot": 65_536,
    "h100-100m": 65_536,
    "h100-100m-seq": 65_536,
    "h100-100m-ddp8": 524_288,
    "h200-1b-ddp8": 1_048_576,
    "h200-1b-ddp8-seq": 1_048_576,
}


@pytest.mark.parametrize("scale", SCALES)
def test_every_preset_keeps_its_batch(scale: str) -> None:
    spec = parse_mapping({"scale": scale})
    assert tokens_per_step(spec.base_config, spec.resources.num_ranks) == PRESETS[scale]
    assert (spec.base_config.batch_source == "derived") == (scale in ("smoke", "demo"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (stage_config(BaseSection(), 1), DERIVED),
        (stage_config(BaseSection(grad_accum_steps=1), 1), "given"),
        (BaseConfig(), "given"),
        (SftConfig(), "given"),
    ],
)
def test_reports_say_where_the_batch_comes_from(config: BaseConfig | SftConfig, said: str) -> None:
    assert source_in_words(config) == said


def test_sft_derives_nothing() -> None:
    config = expand(parse_mapping({"sft": {"max_steps": 100_000}}))[StageName.SFT]
    assert isinstance(config, SftConfig) and config.grad_accum_steps == 1
