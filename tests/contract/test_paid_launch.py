import pickle
from typing import Any

import pytest
from picochat_contract.configs import BaseConfig, ModelConfig, Resources, SftConfig
from picochat_contract.errors import Code
from picochat_contract.model_size import vocab_size
from picochat_contract.paid_launch import (
    ConfirmationRequiredError,
    paid_launch,
    paid_training,
    refuse_unconfirmed,
)
from picochat_contract.spec import expand, parse_mapping
from picochat_contract.stages import StageName

CUDA = {"resources": {"device": "cuda"}}


@pytest.mark.parametrize(
    "raw",
    [
        {"scale": "h100-pilot"},
        {"scale": "h100-100m"},
        {"scale": "h200-1b-ddp8"},
        {"scale": "h100-pilot", "base": {"max_steps": 50}},
        {"scale": "medium", **CUDA},
        {"base": {"max_steps": 5_000}, **CUDA},
        {"scale": "h100-100m", "base": {"stop_after_steps": 201}},
        {"scale": "h100-100m", "base": {"stop_after_steps": 200, "grad_accum_steps": 1_000}},
        {"base": {"max_steps": 10}, "sft": {"max_steps": 10_000_000}, **CUDA},
        {"scale": "h100-100m", "resources": {"device": "auto"}},
        {"base": {"max_steps": 20_000, "model": {"n_embd": 2_048, "n_head": 16, "n_layer": 24}}},
    ],
)
def test_whatever_takes_gpus_for_long_and_every_preset_for_them_asks(raw: dict[str, Any]) -> None:
    spec = parse_mapping(raw)
    assert paid_launch(spec) is not None
    with pytest.raises(ConfirmationRequiredError) as refused:
        refuse_unconfirmed(spec)
    assert refused.value.code is Code.CONFIRMATION_REQUIRED
    assert refuse_unconfirmed(parse_mapping({**raw, "confirm_paid_launch": True})) is not None


@pytest.mark.parametrize(
    "raw",
    [
        {"scale": "demo"},
        {"scale": "medium"},  # device auto, and minutes of a GPU
        {"scale": "smoke", **CUDA},
        {"scale": "h100-100m", "resources": {"device": "cpu"}},
        {"scale": "h100-100m", "until": "preflight"},
        {"scale": "h100-100m", "base": {"stop_after_steps": 200}},
        {"scale": "h200-1b-ddp8", "base": {"stop_after_steps": 200}},
        {"until": "base", "base": {"max_steps": 10}, "sft": {"max_steps": 10_000_000}, **CUDA},
    ],
)
def test_other_runs_do_not_ask(raw: dict[str, Any]) -> None:
    assert refuse_unconfirmed(parse_mapping(raw)) is None


def test_the_message_names_scale_gpus_tokens_hours_and_what_to_do() -> None:
    launch = paid_launch(parse_mapping({"scale": "h100-100m-ddp8"}))
    assert launch is not None
    for part in (
        "h100-100m-ddp8",
        "8 GPU(s)",
        f"{launch.planned_tokens:,} planned tokens",
        "hours",
        "--confirm-paid-launch",
        "picochat sanity preh100 --capacity-scale h100-100m-ddp8",
        "--dry-run-steps 100",
    ):
        assert part in launch.message
    assert launch.planned_tokens == 4_100 * 64 * 2 * 8 * 512
    assert 0 < launch.hours_low < launch.hours_high
    assert launch.high_gpu_hours == 8 * launch.hours_high


def test_hours_are_of_the_class_that_the_scale_names_else_of_the_usual_ones() -> None:
    named = paid_launch(parse_mapping({"scale": "h200-1b-ddp8"}))
    usual = paid_launch(parse_mapping({"scale": "medium", **CUDA}))
    assert named is not None and usual is not None
    assert named.devices.startswith("h200 at")
    assert usual.devices.startswith("h200 to a100 at")


def test_a_device_that_is_left_open_says_how_not_to_be_asked() -> None:
    open_device = {"scale": "h100-pilot", "resources": {"device": "auto"}}
    launch = paid_launch(parse_mapping(open_device))
    assert launch is not None and "resources.device: cpu" in launch.reason
    assert paid_launch(parse_mapping({**open_device, "resources": {"device": "cpu"}})) is None


def test_hours_of_sft_are_counted() -> None:
    base, sft = {"max_steps": 5_000}, {"max_steps": 1_000_000}
    alone = paid_launch(parse_mapping({"base": base, "sft": sft, "until": "base", **CUDA}))
    both = paid_launch(parse_mapping({"base": base, "sft": sft, **CUDA}))
    assert alone is not None and both is not None
    assert both.hours_low > 2 * alone.hours_low


def test_the_refusal_survives_the_way_back_from_a_worker_process() -> None:
    with pytest.raises(ConfirmationRequiredError) as refused:
        refuse_unconfirmed(parse_mapping({"scale": "h100-pilot"}))
    again = pickle.loads(pickle.dumps(refused.value))
    assert (again.launch, again.message) == (refused.value.launch, refused.value.message)


def test_sft_alone_is_asked_about_by_its_hours_and_never_as_a_long_base_training() -> None:
    model, resources = ModelConfig(n_layer=24, n_head=16, n_embd=2_048), Resources(device="cuda")
    launch = paid_training([SftConfig(max_steps=100_000)], model, 32_768, resources)
    assert launch is not None and launch.reason.endswith("GPU hours")
    assert launch.planned_tokens == 100_000 * 16 * model.sequence_len
    assert paid_training([SftConfig(max_steps=200)], model, 32_768, resources) is None
    assert paid_training([SftConfig(max_steps=6_000)], ModelConfig(), 512, resources) is None
    assert paid_training([BaseConfig(max_steps=6_000)], ModelConfig(), 512, resources) is not None


def test_a_training_alone_is_judged_as_the_run_that_it_would_be() -> None:
    spec = parse_mapping({"base": {"max_steps": 5_000}, "until": "base", **CUDA})
    base = expand(spec)[StageName.BASE]
    assert isinstance(base, BaseConfig)
    vocab = vocab_size(spec.tokenizer)
    assert paid_training([base], base.model, vocab, spec.resources) == paid_launch(spec)
    assert paid_training([base], base.model, vocab, Resources(device="cpu")) is None
