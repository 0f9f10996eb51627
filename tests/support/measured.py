"""Content of `preflight.json` about files with given digests, as a preflight stage on a large machine would write it."""

from collections.abc import Mapping
from typing import Any

from picochat_contract import layout
from picochat_contract.configs import PreflightConfig
from picochat_contract.policies import SKILL_GROUPS
from picochat_contract.preflight_facts import PreflightFacts
from picochat_contract.preflight_judge import judge, record
from picochat_contract.spec import validated

NO_FILE = "0" * 64


def sound_facts(digests: Mapping[str, str]) -> dict[str, Any]:
    """Facts that no plan of a test is blocked by; `digests` are those of the run's files, by path."""
    corpus = digests.get(layout.CORPUS_MANIFEST, NO_FILE)
    chat, evaluation = digests.get(layout.CHAT), digests.get(layout.EVAL)
    skills = dict.fromkeys(SKILL_GROUPS, 1_000)
    facts: dict[str, Any] = {
        "corpus": {
            "sha256": corpus,
            "num_documents": 20_000,
            "num_characters": 40_000_000,
            "num_bytes": 40_000_000,
            "readiness": "ready",
            "num_read": 20_000,
            "exact_left": 0.0,
            "near_left": 0.0,
            "duplicate_line_rate": 0.0,
            "has_documents": True,
        },
        "machine": {"cpu_count": 8, "ram_bytes": 1 << 40, "free_disk_bytes": 1 << 44},
    }
    if chat:
        facts["chat"] = {
            "sha256": chat,
            "num_rows": 5_000,
            "num_duplicate_prompts": 0,
            "categories": skills,
            "skills": skills,
            "mean_answer_words": 20.0,
            "mean_open_answer_words": 20.0,
        }
    if evaluation:
        facts["eval"] = {
            "sha256": evaluation,
            "num_items": 1_000,
            "num_without_rules": 0,
            "num_unanswerable": 200,
            "labels": ("visible", "hard"),
            "skills": dict.fromkeys(SKILL_GROUPS, 200),
        }
    if layout.HONESTY in digests:
        facts["honesty"] = {
            "sha256": digests[layout.HONESTY],
            "status": "ready",
            "corpus_sha256": corpus,
            "chat_sha256": chat or NO_FILE,
            "eval_sha256": evaluation or NO_FILE,
            "num_eval": 1_000,
            "exact_prompt_leaks": 0,
            "preference_prompt_leaks": 0,
            "external_leaks": 0,
            "corpus_prompt_hits": 0,
            "near_prompt_leaks": 0,
            "duplicate_eval_prompts": 0,
        }
    return facts


def leaky_facts(digests: Mapping[str, str]) -> dict[str, Any]:
    """The same with three eval prompts among the SFT rows."""
    facts = sound_facts(digests)
    facts["honesty"] |= {"status": "blocked", "exact_prompt_leaks": 3}
    return facts


def preflight_json(config: Mapping[str, Any], facts: Mapping[str, Any]) -> bytes:
    """What the stage writes: its own judgement and the facts."""
    found = PreflightFacts.model_validate(facts)
    report = judge(validated(PreflightConfig, dict(config)), found)
    return record(report, found).model_dump_json().encode()
