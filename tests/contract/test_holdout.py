import pytest
from picochat_contract.configs import BaseConfig
from picochat_contract.device_classes import CPU_FLOAT32, GPU_CLASSES
from picochat_contract.holdout import (
    MAX_VAL_TOKENS,
    MIN_VAL_TOKENS,
    MIN_VAL_TOKENS_IN_TRAINING,
    held_out_fraction,
    tokens_in_training,
)
from picochat_contract.model_size import flops_per_token
from picochat_contract.preflight_facts import MachineFacts
from picochat_contract.preflight_footprint import validation_seconds

MACHINE = MachineFacts(cpu_count=1, ram_bytes=0, free_disk_bytes=0)


@pytest.mark.parametrize(
    ("val_fraction", "num_tokens", "expected"),
    [
        (0.2, 1_000, 0.2),  # as asked for
        (0.001, 100_000, 0.1),  # a small corpus holds out a tenth
        (0.01, 50_000_000, MIN_VAL_TOKENS / 50_000_000),  # at least so many tokens
        (0.002, 22_000_000_000, 0.002),  # which they are already
        (0.05, 0, 0.1),
    ],
)
def test_enough_is_held_out_where_the_corpus_allows(
    val_fraction: float, num_tokens: int, expected: float
) -> None:
    assert held_out_fraction(val_fraction, num_tokens) == pytest.approx(expected)


def test_validation_between_steps_is_as_long_as_the_steps_repay() -> None:
    assert tokens_in_training(BaseConfig(eval_every=100), 8192) == 102_400
    assert tokens_in_training(BaseConfig(eval_every=1), 8192) == MIN_VAL_TOKENS_IN_TRAINING
    assert tokens_in_training(BaseConfig(eval_every=1000), 524_288) == MAX_VAL_TOKENS


def test_the_estimate_has_short_validations_between_steps_and_one_whole_one_on_a_single_rank() -> None:
    base = BaseConfig(max_steps=1_050, eval_every=100)  # 11 validations, the last of them at the end
    one_token = flops_per_token(base.model, 512) / 3 / CPU_FLOAT32.peak_flops
    short = 11 * MIN_VAL_TOKENS_IN_TRAINING
    whole = 5_000_000.0  # held out
    assert tokens_in_training(base, 16 * 256) == MIN_VAL_TOKENS_IN_TRAINING
    estimated = validation_seconds(base, 512, whole, CPU_FLOAT32, MACHINE, 1)
    assert estimated == pytest.approx((short + MAX_VAL_TOKENS) * one_token)
    assert validation_seconds(base, 512, 1_000, CPU_FLOAT32, MACHINE, 1) == pytest.approx(
        12 * 1_000 * one_token
    )
    gpu = GPU_CLASSES[0]
    one_token *= CPU_FLOAT32.peak_flops / (gpu.peak_flops * gpu.utilisation)
    on_two = validation_seconds(base, 512, whole, gpu, MACHINE, 2)
    shared = 11 * tokens_in_training(base, 2 * 16 * 256) / 2
    assert on_two == pytest.approx((shared + MAX_VAL_TOKENS) * one_token)
