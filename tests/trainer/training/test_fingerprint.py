"""What a resume must have in common, field by field."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picochat_contract.batch_size import stage_config
from picochat_contract.configs import BaseConfig, BaseSection, OptimConfig, SftConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.manifest import StageJob
from picochat_contract.stages import StageName
from picochat_contract.version import STAGE_CODE
from picochat_trainer.context import StageContext
from picochat_trainer.training import hardware
from picochat_trainer.training.fingerprint import (
    COMPARED_FIELDS,
    FREE_FIELDS,
    RESOLVED_FIELDS,
    ROUNDING_FIELDS,
    refuse_other_fingerprint,
    rounding_differences,
    training_fingerprint,
)
from picochat_trainer.training.loop import train
from support.trainings import base_context, read_events, tiny_model, tiny_training

PLAIN: dict[str, Any] = {"max_steps": 40, "precision": "float32", "learning_rate": 0.01}


def fingerprint(
    tmp_path: Path,
    config: OptimConfig | None = None,
    *,
    num_ranks: int = 1,
    strategy: str = "ddp",
    device: str = "cpu",
    tokens: str = "t",
    tokenizer: str = "k",
    **changes: Any,
) -> dict[str, Any]:
    stage = StageName.SFT if isinstance(config, SftConfig) else StageName.BASE
    config = config or BaseConfig(**{**PLAIN, **changes})
    job = StageJob.model_validate(
        {"stage": stage, "config": {}, "resources": {"distributed_strategy": strategy}}
    )
    context = StageContext(tmp_path, job, device=device, world_size=num_ranks)
    return training_fingerprint(stage, context, config, data={"tokens": tokens}, tokenizer=tokenizer)


def refused(tmp_path: Path, found: dict[str, Any], expected: dict[str, Any]) -> str:
    with pytest.raises(ContractError) as caught:
        refuse_other_fingerprint(found, expected, tmp_path)
    assert caught.value.code == Code.FINGERPRINT_MISMATCH
    return caught.value.message


@pytest.mark.parametrize("config", [BaseConfig, SftConfig])
def test_every_field_is_in_one_class(config: type[OptimConfig]) -> None:
    compared = [field for fields in COMPARED_FIELDS.values() for field in fields]
    classified = [*compared, *RESOLVED_FIELDS, *ROUNDING_FIELDS, *FREE_FIELDS]
    assert len(classified) == len(set(classified))
    assert set(config.model_fields) <= set(classified)
    assert set(classified) == set(BaseConfig.model_fields) | set(SftConfig.model_fields)


# One change for every field that is compared, as the message names it.
COMPARED: list[tuple[dict[str, Any], str]] = [
    ({"model": {"n_layer": 3}}, "model.model.n_layer: the checkpoint has 4, this job has 3"),
    ({"document_mask": True}, "model.document_mask: the checkpoint has False, this job has True"),
    ({"val_fraction": 0.2}, "data.val_fraction"),
    ({"split_mode": "window"}, "data.split_mode"),
    ({"dataset_mode": "packed"}, "data.dataset_mode"),
    ({"canary_count": 2}, "data.canary_count"),
    ({"canary_repeats": (1, 2)}, "data.canary_repeats"),
    ({"seed": 1}, "data.seed"),
    ({"tokens": "other"}, "data.tokens: the checkpoint has 't', this job has 'other'"),
    ({"tokenizer": "other"}, "tokenizer: the checkpoint has 'k'"),
    ({"optimizer": "muon"}, "optimizer.optimizer: the checkpoint has 'adamw', this job has 'muon'"),
    ({"grad_clip": 0.5}, "optimizer.grad_clip"),
    ({"ema_decay": 0.9}, "optimizer.ema_decay"),
    ({"loss_spike_rollback": True}, "optimizer.loss_spike_rollback"),
    ({"learning_rate": 0.02}, "optimizer.learning_rate: the checkpoint has 0.01, this job has 0.02"),
    ({"auto_lr_scaling": True}, "optimizer.learning_rate: the checkpoint has 0.01, this job has 0.0141421"),
    ({"weight_decay": 0.0}, "optimizer.weight_decay: the checkpoint has 0.1, this job has 0.0"),
    ({"max_steps": 41}, "schedule.max_steps"),
    ({"warmup_steps": 1}, "schedule.warmup_steps"),
    ({"lr_decay": "wsd"}, "schedule.lr_decay"),
    ({"decay_fraction": 0.1}, "schedule.decay_fraction"),
    ({"min_lr_ratio": 0.0}, "schedule.min_lr_ratio"),
    ({"eval_every": 7}, "choice.eval_every"),
    ({"early_stop_patience": 7}, "choice.early_stop_patience"),
    ({"early_stop_min_delta": 0.5}, "choice.early_stop_min_delta"),
    ({"device_batch_size": 8}, "batch.rows_per_step: the checkpoint has 16, this job has 8"),
    ({"num_ranks": 2}, "batch.rows_per_step: the checkpoint has 16, this job has 32"),
    ({"precision": "bf16"}, "precision: the checkpoint has 'float32', this job has 'bf16'"),
]


@pytest.mark.parametrize(
    ("changes", "told"), COMPARED, ids=lambda value: "-".join(value) if isinstance(value, dict) else ""
)
def test_what_changes_results_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    assert told in refused(tmp_path, fingerprint(tmp_path), fingerprint(tmp_path, **changes))


def test_each_compared_field_of_base_has_its_case() -> None:
    cases = {name for changes, _ in COMPARED for name in changes}
    compared = {field for fields in COMPARED_FIELDS.values() for field in fields} | set(RESOLVED_FIELDS)
    assert compared & set(BaseConfig.model_fields) <= cases


@pytest.mark.parametrize("field", ["sampling", "train_on", "seed"])
def test_sft_has_its_own_fields(tmp_path: Path, field: str) -> None:
    others = {"sampling": "uniform", "train_on": "all", "seed": 1}
    found, expected = (SftConfig(**PLAIN), SftConfig(**PLAIN, **{field: others[field]}))
    message = refused(tmp_path, fingerprint(tmp_path, found), fingerprint(tmp_path, expected))
    assert f"data.{field}: the checkpoint has" in message


def test_other_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fingerprint(tmp_path)
    monkeypatch.setitem(STAGE_CODE, "base", STAGE_CODE["base"] + 1)
    assert "code: the checkpoint has" in refused(tmp_path, found, fingerprint(tmp_path))


def test_all_differences_are_named_and_the_first_is_the_parameter(tmp_path: Path) -> None:
    found, expected = fingerprint(tmp_path), fingerprint(tmp_path, seed=1, learning_rate=0.02)
    with pytest.raises(ContractError, match=r"data\.seed: .*; optimizer\.learning_rate: ") as caught:
        refuse_other_fingerprint(found, expected, tmp_path)
    assert caught.value.param == "data.seed"


FREE: list[dict[str, Any]] = [
    {"max_minutes": 1.0},
    {"checkpoint_every": 7},
    {"keep_every": 7},
    {"log_every": 7},
    {"stop_after_steps": 7},
    {"tensorboard": True},
    {"sample_tokens": 1},
    {"sample_prompt": "Once"},
    {"batch_source": "derived"},
]


@pytest.mark.parametrize("changes", FREE, ids=lambda changes: next(iter(changes)))
def test_what_only_watches_or_interrupts_makes_no_difference(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert fingerprint(tmp_path) == fingerprint(tmp_path, **changes)


def test_each_free_field_has_its_case() -> None:
    assert {name for changes in FREE for name in changes} == set(FREE_FIELDS)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"device_batch_size": 8, "grad_accum_steps": 2}, ["device_batch_size", "grad_accum_steps"]),
        ({"device_batch_size": 8, "num_ranks": 2}, ["device_batch_size", "num_ranks", "strategy"]),
        ({"compile": "on"}, ["compile"]),
        ({"attn_backend": "math"}, ["attn_backend"]),
        ({"gradient_checkpointing": True}, ["gradient_checkpointing"]),
        ({"loss_chunk_tokens": 64}, ["loss_chunk_tokens"]),
        ({"device": "cuda:0"}, ["device", "hardware", "threads"]),
    ],
)
def test_another_way_of_computing_the_same_is_told_and_not_refused(
    tmp_path: Path, changes: dict[str, Any], told: list[str]
) -> None:
    found, expected = fingerprint(tmp_path), fingerprint(tmp_path, **changes)
    refuse_other_fingerprint(found, expected, tmp_path)
    assert [difference.split(":")[0] for difference in rounding_differences(found, expected)] == told


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_tokens_per_step_that_are_given_go_on_with_any_number_of_ranks_that_divides_them(
    tmp_path: Path, num_ranks: int
) -> None:
    section = BaseSection(**{**PLAIN, "learning_rate": None}, global_batch_tokens=4 * 16 * 256)
    alone, shared = (
        fingerprint(tmp_path, stage_config(section, ranks), num_ranks=ranks) for ranks in (1, num_ranks)
    )
    refuse_other_fingerprint(alone, shared, tmp_path)
    assert shared["batch"] == {"rows_per_step": 64}


@pytest.mark.parametrize(("steps", "refuses"), [(18_500, False), (10_000, True)])
def test_a_derived_batch_goes_on_where_it_comes_to_the_same_rows_and_is_refused_by_name_else(
    tmp_path: Path, steps: int, refuses: bool
) -> None:
    section = BaseSection(**{**PLAIN, "max_steps": steps, "device_batch_size": 8})
    alone, shared = (fingerprint(tmp_path, stage_config(section, ranks), num_ranks=ranks) for ranks in (1, 2))
    if refuses:
        told = "batch.rows_per_step: the checkpoint has 232, this job has 224"
        assert told in refused(tmp_path, alone, shared)
    else:
        refuse_other_fingerprint(alone, shared, tmp_path)


@pytest.mark.parametrize(
    ("place", "name", "other", "told"),
    [
        (torch, "__version__", "9.9", "torch"),
        (np, "__version__", "9.9", "numpy"),
        (torch, "get_num_threads", lambda: 99, "threads"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "AVX9", "hardware"),
    ],
)
def test_what_computes_the_same_sums_otherwise_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, other: Any, told: str
) -> None:
    found = fingerprint(tmp_path)
    monkeypatch.setattr(place, name, other)
    expected = fingerprint(tmp_path)
    refuse_other_fingerprint(found, expected, tmp_path)
    assert [difference.split(":")[0] for difference in rounding_differences(found, expected)] == [told]


def test_precision_is_what_auto_comes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for has_bf16, named in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(hardware, "cpu_has_bf16", lambda has_bf16=has_bf16: has_bf16)
        assert fingerprint(tmp_path, precision="auto") == fingerprint(tmp_path, precision=named)


def test_rates_that_are_derived_are_compared_as_they_come_out(tmp_path: Path) -> None:
    derived = fingerprint(tmp_path, learning_rate=None, weight_decay=None)["optimizer"]
    given = {"learning_rate": derived["learning_rate"], "weight_decay": derived["weight_decay"]}
    assert fingerprint(tmp_path, **given)["optimizer"] == derived
    warmup = fingerprint(tmp_path, warmup_steps=None)["schedule"]
    assert fingerprint(tmp_path, warmup_steps=warmup["warmup_steps"])["schedule"] == warmup
    assert 0 < derived["learning_rate"] < 0.01 and derived["weight_decay"] > 0


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"numpy": "9.9"}, "batches may come in another order: numpy: the checkpoint has '1.0'"),
        ({"numpy": "1.0", "torch": "9.9"}, "last bits may differ: torch: the checkpoint has None"),
    ],
)
def test_a_resume_with_other_libraries_goes_on_and_says_what_may_differ(
    tmp_path: Path, other: dict[str, str], told: str
) -> None:
    for rounding, changes in (({"numpy": "1.0"}, {"stop_after_steps": 2}), (other, {})):
        training = tiny_training(tiny_model(), fingerprint={"rounding": rounding}, max_steps=4, **changes)
        outcome = train(base_context(tmp_path), training)
    assert outcome.state.step == 4
    [message] = [event["message"] for event in read_events(tmp_path, "log") if event["level"] == "warning"]
    assert told in message
