"""Preflight checks: each has a plan that passes it, one that warns and one that blocks, where its rule can."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from picochat_contract.configs import PreflightConfig
from picochat_contract.errors import SpecError
from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight import PreflightCheck, PreflightRecord, PreflightReport, PreflightStatus
from picochat_contract.preflight_judge import RULES, judge, record
from picochat_contract.preflight_rules import Waiver
from support.preflight import GIB, fitting_facts, merged, preflight_config

SHORT = {"scale": "smoke"}
LONG = {"scale": "medium"}  # gate profile research
RELEASE = {"scale": "h100-100m"}  # long, gate profile skill_release
DDP = {"scale": "h100-100m-ddp8"}


class Case(NamedTuple):
    """A plan and what differs from facts that fit it."""

    spec: Mapping[str, Any]
    facts: Mapping[str, Any] = {}


def spec(below: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return merged(dict(below), changes)


def base(below: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return spec(below, base=changes)


def sft(below: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return spec(below, sft=changes)


def corpus(**changes: Any) -> dict[str, Any]:
    return {"corpus": changes}


def chat(**changes: Any) -> dict[str, Any]:
    return {"chat": changes}


def items(**changes: Any) -> dict[str, Any]:
    return {"eval": changes}


def honesty(**changes: Any) -> dict[str, Any]:
    return {"honesty": changes}


def machine(**changes: Any) -> dict[str, Any]:
    return {"machine": changes}


NO_TEXT = corpus(num_documents=0, num_characters=0, num_bytes=0)
GENERATED = {"sources": [{"type": "file", "path": "corpus"}], "chat": None, "eval": None}
GPU = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 79 * GIB, "has_bf16": True, "capability": 9}

WARNS: dict[str, Case] = {
    "corpus_readiness": Case(SHORT, corpus(readiness="caution")),
    "documents": Case(LONG, corpus(num_documents=99)),
    "duplicate_documents": Case(SHORT, corpus(exact_left=0.04)),
    "near_duplicate_documents": Case(SHORT, corpus(near_left=0.06)),
    "removed_documents": Case(SHORT, corpus(num_exact_removed=6_000, num_read=10_000)),
    "duplicate_lines": Case(SHORT, corpus(duplicate_line_rate=0.16)),
    "corpus_size": Case(LONG, corpus(num_characters=999_999)),
    "document_split": Case(base(SHORT, split_mode="window")),
    "document_boundaries": Case(base(SHORT, dataset_mode="packed"), corpus(has_documents=False)),
    "bpe_vocab_size": Case(spec(SHORT, tokenizer={"vocab_size": 1_023})),
    "tokenizer_corpus_fit": Case(spec(SHORT, tokenizer={"vocab_size": 511})),
    "explicit_vocab": Case({"base": {"max_steps": 5_000}}),
    "tokenizer_type": Case(spec(LONG, tokenizer={"type": "byte"})),
    "honesty_near": Case(SHORT, honesty(near_prompt_leaks=1)),
    "honesty_corpus": Case(LONG, honesty(corpus_prompt_hits=1)),
    "eval_duplicate_prompts": Case(SHORT, honesty(duplicate_eval_prompts=1)),
    "default_tuning_data": Case(spec(SHORT, dataset=GENERATED, gate={"profile": "research"})),
    "ddp_loss_spike_rollback": Case(RELEASE, machine(gpus=[{**GPU, "memory_bytes": 29_815_000_000}])),
    "ddp_muon_optimizer": Case(base(DDP, optimizer="muon", device_batch_size=1, grad_accum_steps=1)),
    "fsdp_ranks": Case(spec(SHORT, resources={"distributed_strategy": "fsdp"})),
    "compute_optimal_horizon": Case(base(LONG, max_steps=2_000)),
    "corpus_model_fit": Case(SHORT, corpus(num_bytes=150_000)),
    "base_exposure": Case(SHORT, corpus(num_bytes=5_000, num_documents=10)),
    "effective_batch": Case(base(SHORT, device_batch_size=7)),
    "base_lr": Case(base(SHORT, learning_rate=0.0031)),
    "base_effective_lr": Case(base(LONG, auto_lr_scaling=True)),
    "lr_batch_scaling": Case(base(LONG, learning_rate=1e-4)),
    "ddp_auto_lr_scaling": Case(base(DDP, auto_lr_scaling=True)),
    "residual_init_scale": Case(base(RELEASE, model={"scaled_residual_init": False})),
    "chat_sft_readiness": Case(SHORT, chat(num_rows=7)),
    "sft_rows": Case(LONG, chat(num_rows=499)),
    "sft_duplicate_prompts": Case(SHORT, chat(num_duplicate_prompts=301)),
    "sft_category_balance": Case(LONG, chat(categories={"bench_choice": 0})),
    "sft_answer_length": Case(LONG, chat(mean_open_answer_words=5.9)),
    "sft_exposure": Case(LONG, chat(num_rows=340)),
    "sft_lr": Case(sft(LONG, learning_rate=1.1e-3)),
    "sft_effective_lr": Case(sft(LONG, auto_lr_scaling=True)),
    "sft_lr_batch_scaling": Case(sft(LONG, learning_rate=1e-6)),
    "eval_readiness": Case(SHORT, items(num_unanswerable=0)),
    "eval_rows": Case(LONG, items(num_items=99)),
    "eval_rules": Case(SHORT, items(num_without_rules=1)),
    "unanswerable_eval": Case(LONG, items(num_unanswerable=1)),
    "eval_splits": Case(LONG, items(labels=["heldout"])),
    "external_eval": Case(RELEASE, {"external": {"arc": 49}}),
    "memory": Case(SHORT, machine(ram_bytes=20_000_000)),
    "host_memory": Case(base(SHORT, dataset_mode="memory"), machine(ram_bytes=2_500_000)),
    "disk_space": Case(SHORT, machine(free_disk_bytes=7_000_000)),
    "time_estimate": Case(RELEASE, machine(gpus=[{**GPU, "name": "Another Card"}])),
}
BLOCKS: dict[str, Case] = {
    "corpus_readiness": Case(SHORT, corpus(readiness="blocked")),
    "documents": Case(SHORT, NO_TEXT),
    "duplicate_documents": Case(LONG, corpus(exact_left=0.11)),
    "near_duplicate_documents": Case(LONG, corpus(near_left=0.16)),
    "duplicate_lines": Case(LONG, corpus(duplicate_line_rate=0.31)),
    "corpus_size": Case(SHORT, NO_TEXT),
    "document_split": Case(base(LONG, split_mode="window")),
    "document_boundaries": Case(RELEASE, corpus(has_documents=False)),
    "bpe_vocab_size": Case(spec(LONG, tokenizer={"vocab_size": 511})),
    "honesty_report": Case(SHORT, {"honesty": None}),
    "honesty": Case(SHORT, honesty(exact_prompt_leaks=1)),
    "honesty_near": Case(RELEASE, honesty(near_prompt_leaks=11)),
    "honesty_corpus": Case(RELEASE, honesty(corpus_prompt_hits=1)),
    "default_tuning_data": Case(
        {"base": {"max_steps": 5_000}, "dataset": GENERATED, "gate": {"profile": "research"}}
    ),
    "attention_backend_runtime": Case(base(SHORT, attn_backend="flash")),
    "ddp_loss_spike_rollback": Case(RELEASE, machine(gpus=[{**GPU, "memory_bytes": 29_415_000_000}])),
    "compute_optimal_horizon": Case(base(LONG, max_steps=13_000)),
    "corpus_model_fit": Case(LONG, corpus(num_bytes=5_000_000)),
    "base_exposure": Case(LONG, NO_TEXT),
    "ddp_scale_launch": Case(spec(DDP, resources={"nproc_per_node": 4})),
    "release_token_budget": Case(base(RELEASE, max_steps=28_000)),
    "chat_sft_readiness": Case(SHORT, chat(num_invalid=1)),
    "sft_rows": Case(LONG, chat(num_rows=299)),
    "sft_duplicate_prompts": Case(LONG, chat(num_duplicate_prompts=751)),
    "sft_category_balance": Case(SHORT, chat(skills={"math": 0})),
    "sft_exposure": Case(LONG, {"chat": None}),
    "eval_readiness": Case(SHORT, {"eval": None}),
    "eval_rows": Case(LONG, items(num_items=79)),
    "eval_rules": Case(LONG, items(num_without_rules=1)),
    "eval_skill_release_coverage": Case(SHORT, items(skills={"math": 0})),
    "device": Case(RELEASE, machine(gpus=[])),
    "optional_packages": Case(sft(SHORT, tensorboard=True)),
    "memory": Case(RELEASE, machine(gpus=[{**GPU, "memory_bytes": 16 * GIB}])),
    "host_memory": Case(base(RELEASE, dataset_mode="memory"), machine(ram_bytes=4 * GIB)),
    "disk_space": Case(RELEASE, machine(free_disk_bytes=4 * GIB)),
    "time_estimate": Case(spec(RELEASE, preflight={"max_hours": 1})),
}
BY_ID = {rule.id: rule for rule in RULES}


def report_of(case: Case) -> PreflightReport:
    config = preflight_config(dict(case.spec))
    return judge(config, fitting_facts(config, dict(case.facts)))


def check_of(id: str, case: Case) -> PreflightCheck:
    return next(check for check in report_of(case).checks if check.id == id)


def test_every_rule_that_can_warn_or_block_has_a_fixture_that_does() -> None:
    assert set(WARNS) == {rule.id for rule in RULES if rule.warn}
    assert set(BLOCKS) == {rule.id for rule in RULES if rule.block}


@pytest.mark.parametrize("id", BY_ID)
@pytest.mark.parametrize("plan", [SHORT, LONG, RELEASE, DDP], ids=lambda plan: plan["scale"])
def test_a_plan_that_fits_passes(id: str, plan: dict[str, Any]) -> None:
    check = check_of(id, Case(plan))
    assert (check.status, check.fix) == (CheckStatus.PASS, "")


@pytest.mark.parametrize("id", WARNS)
def test_it_warns_and_says_what_to_do(id: str) -> None:
    check = check_of(id, WARNS[id])
    assert check.status is CheckStatus.WARN, check.message
    assert check.fix and check.message and "{" not in check.fix


@pytest.mark.parametrize("id", BLOCKS)
def test_it_blocks_the_run_and_says_what_to_do(id: str) -> None:
    report = report_of(BLOCKS[id])
    check = next(check for check in report.checks if check.id == id)
    assert check.status is CheckStatus.BLOCK, check.message
    assert report.status is PreflightStatus.BLOCKED and id in report.summary
    assert check.fix and check.message and "{" not in check.fix


@pytest.mark.parametrize("id", BLOCKS)
def test_the_setting_that_the_table_names_waives_it(id: str) -> None:
    rule, case = BY_ID[id], BLOCKS[id]
    waived = Case(merged(dict(case.spec), {"preflight": {rule.waiver.value: True}}), case.facts)
    check = check_of(id, waived)
    assert (check.status, check.waived_by) == (CheckStatus.BLOCK, f"preflight.{rule.waiver.value}")
    assert id not in [blocking.id for blocking in report_of(waived).blocking]


def test_a_waived_block_leaves_a_warning_that_names_the_setting() -> None:
    report = report_of(Case(spec(SHORT, preflight={"allow_leaky_eval": True}), honesty(exact_prompt_leaks=1)))
    assert report.status is PreflightStatus.WARN
    assert [check.id for check in report.waived] == ["honesty"]
    assert "preflight.allow_leaky_eval" in report.summary


@pytest.mark.parametrize("waiver", Waiver)
def test_each_waiver_is_a_setting_of_preflight(waiver: Waiver) -> None:
    assert waiver.value in PreflightConfig.model_fields


@pytest.mark.parametrize(
    ("plan", "is_long"),
    [
        (base(SHORT, max_steps=4_999), False),
        (base(SHORT, max_steps=5_000), True),
        ({"scale": "demo"}, False),  # a million parameters, but half a minute
        ({"scale": "small"}, True),
        (base(RELEASE, max_steps=100), True),  # a dry run of 107M parameters
    ],
)
def test_long_runs_are_told_from_trials(plan: dict[str, Any], is_long: bool) -> None:
    report = report_of(Case(plan))
    assert report.budget["long_run"] is is_long
    assert any(note.startswith(f"This is a {'long' if is_long else 'short'} run") for note in report.notes)


def test_a_dry_run_of_a_preset_is_not_blocked() -> None:
    report = report_of(Case(base({"scale": "climbmix-pilot"}, max_steps=100)))
    assert report.status is PreflightStatus.WARN


def test_the_demo_on_its_own_corpus_is_not_blocked() -> None:
    """The manual of Python: 79 documents, half a megabyte, no external benchmark."""
    own = corpus(num_documents=79, num_characters=500_000, num_bytes=505_000, readiness="caution")
    report = report_of(Case({"scale": "demo"}, {**own, "external": {"arc": 0}}))
    assert report.status is PreflightStatus.WARN, report.summary


def test_checks_of_stages_that_do_not_run_are_left_out_and_noted() -> None:
    report = report_of(Case(spec(SHORT, until="tokenizer")))
    ids = {check.id for check in report.checks}
    assert {"documents", "honesty", "bpe_vocab_size"} <= ids
    assert not ids & {"sft_rows", "eval_rows", "base_lr", "memory", "external_eval"}
    assert any("left out: the run ends with tokenizer" in note for note in report.notes)


@pytest.mark.parametrize("part", ["corpus", "chat", "eval"])
def test_a_report_about_another_file_is_no_honesty_report(part: str) -> None:
    check = check_of("honesty_report", Case(SHORT, honesty(**{f"{part}_sha256": "0" * 64})))
    assert (check.status, check.measured) == (CheckStatus.BLOCK, "other files")


@pytest.mark.parametrize("about", [{"preferences_sha256": "0" * 64}, {"external_sha256": {"arc": "0" * 64}}])
def test_a_report_about_other_preferences_or_benchmarks_is_none_either(about: dict[str, Any]) -> None:
    check = check_of("honesty_report", Case(SHORT, honesty(**about)))
    assert (check.status, check.measured) == (CheckStatus.BLOCK, "other files")


def test_learning_rates_of_any_batch_can_pass() -> None:
    """Also one that automatic scaling has multiplied."""
    scaled = base(LONG, auto_lr_scaling=True, learning_rate=5e-4)
    assert check_of("lr_batch_scaling", Case(scaled)).status is CheckStatus.PASS
    assert check_of("base_effective_lr", Case(scaled)).status is CheckStatus.PASS


def test_the_larger_micro_batch_of_base_and_sft_has_to_fit() -> None:
    room = machine(ram_bytes=40_000_000)
    assert check_of("memory", Case(SHORT, room)).status is CheckStatus.PASS
    assert check_of("memory", Case(sft(SHORT, device_batch_size=64), room)).status is CheckStatus.BLOCK
    until_base = spec(sft(SHORT, device_batch_size=64), until="base")
    assert check_of("memory", Case(until_base, room)).status is CheckStatus.PASS


def test_the_smallest_of_the_devices_has_to_hold_its_rank() -> None:
    gpus = [*([GPU] * 7), {**GPU, "memory_bytes": 16 * GIB}]
    assert check_of("memory", Case(DDP, machine(gpus=gpus))).status is CheckStatus.BLOCK
    assert check_of("memory", Case(RELEASE, machine(gpus=gpus))).status is CheckStatus.PASS


@pytest.mark.parametrize(
    ("id", "plan"), [("memory", SHORT), ("host_memory", base(SHORT, dataset_mode="memory"))]
)
def test_a_machine_without_memory_fits_nothing(id: str, plan: dict[str, Any]) -> None:
    assert check_of(id, Case(plan, machine(ram_bytes=0))).status is CheckStatus.BLOCK


def test_without_rows_no_number_of_steps_is_named() -> None:
    assert "None" not in check_of("sft_exposure", Case(LONG, {"chat": None})).fix


def test_own_rows_without_skills_can_have_another_gate() -> None:
    none = dict.fromkeys(("identity", "refusal", "choice", "math", "spelling"), 0)
    checks = [
        check_of(id, Case(SHORT, chat(skills=none) | items(skills=none)))
        for id in ("sft_category_balance", "eval_skill_release_coverage")
    ]
    assert all("gate.profile" in check.fix for check in checks)


def test_an_unknown_device_is_over_any_limit_of_hours() -> None:
    gpus = machine(gpus=[{**GPU, "name": "Another Card"}])
    check = check_of("time_estimate", Case(spec(RELEASE, preflight={"max_hours": 100}), gpus))
    assert (check.status, check.measured) == (CheckStatus.BLOCK, "unknown, but limited")


def test_a_plan_that_nobody_filled_in_is_refused() -> None:
    with pytest.raises(SpecError, match=r"preflight\.plan|holds none"):
        judge(PreflightConfig(), fitting_facts(preflight_config(SHORT)))


def test_the_record_holds_report_and_facts_and_is_read_back() -> None:
    config = preflight_config(RELEASE)
    facts = fitting_facts(config)
    report = judge(config, facts)
    read = PreflightRecord.model_validate_json(record(report, facts).model_dump_json())
    assert read.facts == facts and judge(config, read.facts) == report
