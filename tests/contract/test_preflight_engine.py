"""Preflight of what the training engine can do: attention kernels, ranks, Muon, rollback, packages, several machines."""

from typing import Any

import pytest
from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight import PreflightCheck, PreflightReport
from picochat_contract.preflight_judge import judge
from support.preflight import GIB, fitting_facts, merged, preflight_config

RELEASE: dict[str, Any] = {"scale": "h100-100m"}
DDP: dict[str, Any] = {"scale": "h100-100m-ddp8"}
LARGE: dict[str, Any] = {"scale": "h200-1b-ddp8"}
GPU = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 79 * GIB, "has_bf16": True, "capability": 9}
AMPERE = {"name": "NVIDIA A100-SXM4-80GB", "memory_bytes": 79 * GIB, "has_bf16": True, "capability": 8}
FA3 = {"packages": ["flash_attn_interface"]}


def report_of(raw: dict[str, Any], machine: dict[str, Any] | None = None) -> PreflightReport:
    config = preflight_config(raw)
    return judge(config, fitting_facts(config, {"machine": machine or {}}))


def check_of(id: str, raw: dict[str, Any], machine: dict[str, Any] | None = None) -> PreflightCheck:
    return next(check for check in report_of(raw, machine).checks if check.id == id)


def test_steps_that_meet_the_target_are_told_with_the_batch_that_they_need() -> None:
    """A derived batch changes with the steps: what is recommended has to be right where it is followed."""
    raw: dict[str, Any] = {
        "base": {"max_steps": 500, "device_batch_size": 8, "canary_count": 0},
        "until": "base",
    }
    first = report_of(raw).budget
    assert first["planned_to_target_ratio"] < 0.1
    tokens = int(first["recommended_tokens_per_step"])
    assert tokens > first["base_effective_tokens_per_step"]
    changed = with_base(raw, max_steps=first["recommended_base_steps"], global_batch_tokens=tokens)
    second = report_of(changed).budget
    assert second["planned_to_target_ratio"] == pytest.approx(1, rel=0.01)
    assert (second["recommended_base_steps"], second["recommended_tokens_per_step"]) == (
        first["recommended_base_steps"],
        tokens,
    )


def test_the_fix_for_too_many_tokens_names_steps_and_batch() -> None:
    check = check_of("compute_optimal_horizon", with_base(RELEASE, max_steps=200_000))
    assert "base.max_steps to about 32,6" in check.fix and "base.global_batch_tokens to 65,536" in check.fix


@pytest.mark.parametrize(
    ("batch", "said"), [({}, "given"), ({"grad_accum_steps": None}, "derived by Step Law")]
)
def test_preflight_says_where_the_batch_comes_from(batch: dict[str, Any], said: str) -> None:
    report = report_of(with_base(RELEASE, **batch))
    assert str(report.budget["base_batch_source"]).startswith(said)
    [check] = [check for check in report.checks if check.id == "effective_batch"]
    assert f"tokens per step ({said}" in check.message


def with_base(raw: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return merged(raw, {"base": changes})


@pytest.mark.parametrize(
    ("changes", "machine", "found"),
    [
        ({"attn_backend": "flash"}, {}, "fits"),
        ({"attn_backend": "efficient", "precision": "float32"}, {}, "fits"),
        ({"attn_backend": "cudnn"}, {}, "fits"),
        ({"attn_backend": "flex", "document_mask": True}, {}, "fits"),
        ({"attn_backend": "auto", "document_mask": True}, {}, "fits"),
        ({"attn_backend": "fa3"}, FA3, "fits"),
        ({"attn_backend": "fa3"}, {}, "needs its package"),
        ({"attn_backend": "fa3"}, {**FA3, "gpus": [AMPERE]}, "needs hopper"),
        ({"attn_backend": "flash", "precision": "float32"}, {}, "needs bf16"),
        ({"attn_backend": "flash"}, {"gpus": [{**AMPERE, "has_bf16": False}]}, "needs bf16"),
        ({"attn_backend": "flash", "document_mask": True}, {}, "cannot mask documents"),
        ({"attn_backend": "flex", "model": {"dropout": 0.1}}, {}, "needs dropout 0"),
        ({"attn_backend": "flash", "model": {"dropout": 0.1}}, {}, "fits"),
        ({"attn_backend": "flash", "model": {"n_head": 2, "n_kv_head": 1}}, {}, "needs another head size"),
        ({"attn_backend": "cudnn", "model": {"n_head": 4}}, {"gpus": [AMPERE]}, "needs another head size"),
        ({"attn_backend": "cudnn", "model": {"n_head": 4}}, {}, "fits"),
    ],
)
def test_a_kernel_is_held_against_what_it_needs(
    changes: dict[str, Any], machine: dict[str, Any], found: str
) -> None:
    check = check_of("attention_backend_runtime", with_base(RELEASE, **changes), machine)
    assert check.measured == found, check.message
    assert check.status is (CheckStatus.PASS if found == "fits" else CheckStatus.BLOCK)


def test_the_kernel_of_sft_is_looked_at_too_where_there_is_sft() -> None:
    wrong = merged(RELEASE, {"sft": {"attn_backend": "fa3"}})
    assert check_of("attention_backend_runtime", wrong).status is CheckStatus.BLOCK
    assert check_of("attention_backend_runtime", {**wrong, "until": "base"}).status is CheckStatus.PASS


def test_muon_on_ranks_passes_with_a_batch_that_is_worth_its_step() -> None:
    check = check_of("ddp_muon_optimizer", with_base(DDP, optimizer="muon"))
    assert check.status is CheckStatus.PASS and 0 < float(check.measured or 0) < 0.02


def test_more_ranks_than_matrices_do_not_make_muon_cheaper() -> None:
    small = {"n_layer": 1, "n_head": 12, "n_kv_head": 4, "n_embd": 768}
    plan = with_base(RELEASE, optimizer="muon", device_batch_size=8, grad_accum_steps=1, model=small)
    shares = [
        float(
            check_of("ddp_muon_optimizer", merged(plan, {"resources": {"nproc_per_node": n}})).measured or 0
        )
        for n in (1, 2, 8, 64)
    ]
    assert shares[0] > shares[1] > shares[2] and shares[2] == shares[3] > 0


def test_rollback_on_ranks_passes_where_there_is_room() -> None:
    check = check_of("ddp_loss_spike_rollback", DDP)
    assert check.status is CheckStatus.PASS and "8 rank(s)" in check.message
    assert "off" in check_of("ddp_loss_spike_rollback", with_base(DDP, loss_spike_rollback=False)).message


def test_fsdp_shares_out_what_ddp_would_not_fit() -> None:
    small = {"gpus": [{**GPU, "memory_bytes": 40_000_000_000}] * 8}
    fsdp = merged(LARGE, {"resources": {"distributed_strategy": "fsdp"}})
    assert check_of("memory", LARGE, small).status is CheckStatus.BLOCK
    assert check_of("memory", fsdp, small).status is CheckStatus.PASS
    assert check_of("fsdp_ranks", fsdp).status is CheckStatus.PASS


def test_packages_that_are_installed_are_not_missing() -> None:
    plan = with_base(RELEASE, tensorboard=True)
    assert check_of("optional_packages", plan).status is CheckStatus.BLOCK
    assert check_of("optional_packages", plan, {"packages": ["tensorboard"]}).status is CheckStatus.PASS


def test_on_several_machines_each_has_its_own_devices_and_all_share_the_steps() -> None:
    two = {"nproc_per_node": 4, "nnodes": 2, "rdzv_endpoint": "first:29500"}
    report = report_of(merged(DDP, {"resources": two}))
    assert report.status == "ready", report.summary
    one = report_of(DDP)
    assert report.budget["estimated_hours"] == one.budget["estimated_hours"]
    assert report.budget["ddp_world_size"] == 8


def test_checkpointing_takes_less_memory_and_more_time() -> None:
    plain, saving = (report_of(with_base(LARGE, gradient_checkpointing=on)).budget for on in (False, True))
    assert float(saving["memory_bytes"] or 0) < 0.7 * float(plain["memory_bytes"] or 0)
    assert float(saving["estimated_hours"] or 0) > 1.3 * float(plain["estimated_hours"] or 0)


def test_a_rate_of_ones_own_is_held_against_the_law_and_not_against_automatic_scaling() -> None:
    plan = with_base(RELEASE, learning_rate=2e-3)
    assert check_of("base_effective_lr", plan).status is CheckStatus.PASS
    assert check_of("lr_batch_scaling", plan).status is CheckStatus.PASS
    assert check_of("lr_batch_scaling", with_base(RELEASE, learning_rate=4e-3)).status is CheckStatus.WARN


def test_a_derived_rate_is_the_laws() -> None:
    assert check_of("lr_batch_scaling", with_base(RELEASE, learning_rate=None)).measured == pytest.approx(1)
