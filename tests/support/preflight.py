"""Plans and facts for preflight tests: a corpus, rows and a machine that fit whatever plan they are made for."""

from typing import Any

from picochat_contract.configs import PreflightConfig
from picochat_contract.model_size import num_parameters, vocab_size
from picochat_contract.preflight_budget import estimated_tokens_per_byte
from picochat_contract.preflight_facts import (
    ChatFacts,
    CorpusFacts,
    EvalFacts,
    GpuFacts,
    HonestyFacts,
    MachineFacts,
    PreflightFacts,
)
from picochat_contract.spec import expand, parse_mapping
from picochat_contract.stages import StageName

GIB = 1 << 30
SKILLS = {"identity": 200, "refusal": 200, "choice": 200, "math": 200, "spelling": 200}
OWN_DATA = {
    "sources": [{"type": "file", "path": "corpus"}],
    "chat": {"type": "file", "path": "chat.jsonl"},
    "eval": {"type": "file", "path": "eval.jsonl"},
    "external": {"arc": {"type": "file", "path": "arc.jsonl"}},
}


def preflight_config(raw: dict[str, Any]) -> PreflightConfig:
    """The preflight config of a run spec, its plan filled in, with own data files where `raw` names no dataset."""
    spec = parse_mapping({"dataset": OWN_DATA, **raw})
    config = expand(spec)[StageName.PREFLIGHT]
    assert isinstance(config, PreflightConfig)
    return config


def fitting_facts(config: PreflightConfig, changes: dict[str, Any] | None = None) -> PreflightFacts:
    """Facts with which every check of this plan passes; `changes` are merged into them, key by key."""
    facts = {
        "corpus": corpus_facts(config).model_dump(),
        "chat": ChatFacts(
            sha256="c" * 64,
            num_rows=3_000,
            num_duplicate_prompts=0,
            categories={"identity": 600, "refusal": 600, "bench_choice": 600, "bench_math_add": 1_200},
            skills=SKILLS,
            mean_answer_words=9.0,
            mean_open_answer_words=12.0,
        ).model_dump(),
        "eval": EvalFacts(
            sha256="e" * 64,
            num_items=200,
            num_without_rules=0,
            num_unanswerable=40,
            labels=("heldout", "transfer"),
            skills=SKILLS,
        ).model_dump(),
        "external": {"arc": 100},
        "honesty": HonestyFacts(
            sha256="f" * 64,
            status="ready",
            corpus_sha256="a" * 64,
            chat_sha256="c" * 64,
            eval_sha256="e" * 64,
            num_eval=200,
            exact_prompt_leaks=0,
            preference_prompt_leaks=0,
            external_leaks=0,
            corpus_prompt_hits=0,
            near_prompt_leaks=0,
            duplicate_eval_prompts=0,
        ).model_dump(),
        "machine": machine_facts(config).model_dump(),
    }
    return PreflightFacts.model_validate(merged(facts, changes or {}))


def corpus_facts(config: PreflightConfig) -> CorpusFacts:
    """Text for one epoch and a quarter of the plan or of its target, whichever is longer."""
    plan = config.plan
    assert plan is not None
    base = plan.base
    rows = base.device_batch_size * base.grad_accum_steps * plan.resources.num_ranks
    planned = base.max_steps * rows * base.model.sequence_len
    target = config.target_param_data_ratio * num_parameters(base.model, vocab_size(plan.tokenizer))
    tokens = 1.25 * max(planned, target)
    num_bytes = max(2_000_000, round(tokens / estimated_tokens_per_byte(plan.tokenizer)[0]))
    num_documents = max(200, num_bytes // 4_000)
    return CorpusFacts(
        sha256="a" * 64,
        num_documents=num_documents,
        num_characters=num_bytes,
        num_bytes=num_bytes,
        readiness="ready",
        num_read=num_documents + 20,
        num_exact_removed=10,
        num_near_removed=10,
        exact_left=0.0,
        near_left=0.0,
        duplicate_line_rate=0.02,
        has_documents=True,
    )


def machine_facts(config: PreflightConfig) -> MachineFacts:
    """As many H100s as the plan has ranks where it asks for CUDA, H200s for a 1B model; else a desktop."""
    plan = config.plan
    assert plan is not None
    ranks, here = plan.resources.num_ranks, plan.resources.nproc_per_node
    is_large = vocab_size(plan.tokenizer) > 10_000
    gpu = GpuFacts(
        name="NVIDIA H200" if is_large else "NVIDIA H100 80GB HBM3",
        memory_bytes=(140 if is_large else 79) * GIB,
        has_bf16=True,
        capability=9,
    )
    on_gpu = plan.resources.device == "cuda"
    return MachineFacts(
        gpus=(gpu,) * here if on_gpu else (),
        cpu_count=8,
        cpu_has_bf16=True,
        ram_bytes=(512 if on_gpu else 32) * GIB,
        free_disk_bytes=500 * GIB,
        world_size=ranks,
    )


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """A copy of `below` with the values of `above`, key by key; None replaces a whole part."""
    result = dict(below)
    for key, value in above.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result
