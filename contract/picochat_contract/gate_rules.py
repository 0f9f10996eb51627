"""The rules of the gate, by the evidence that they read."""

from collections.abc import Callable, Iterator

from picochat_contract.evidence import (
    BaseEvidence,
    EvalEvidence,
    Evidence,
    FitEvidence,
    SftEvidence,
)
from picochat_contract.gate_checks import at_least, at_most, check, pooled, rate, rate_at_most, too_few
from picochat_contract.gate_data_rules import audit_rules, honesty_rules, memorization_rules, preflight_rules
from picochat_contract.gate_report import Check, CheckStatus
from picochat_contract.policies import GatePolicy


def _base_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, BaseEvidence)
    ratio = e.val_bpb / e.unigram_bpb
    yield check(
        "base_bpb",
        ratio < policy.max_bpb_to_unigram,
        ratio,
        policy.max_bpb_to_unigram,
        "<",
        f"validation BPB {e.val_bpb:.3f}, unigram baseline {e.unigram_bpb:.3f}",
        "train longer, on more text, or with a larger model",
        name,
    )
    yield at_least(
        "base_val_tokens",
        e.val_tokens,
        policy.min_val_tokens,
        "held-out tokens",
        "give a larger corpus or raise base.val_fraction",
        name,
    )
    yield check(
        "base_holdout",
        e.split_mode == "document",
        None,
        None,
        "==",
        f"validation text was held out by {e.split_mode}",
        "give a corpus of several documents and base.split_mode: document",
        name,
        severity=CheckStatus.WARN,
    )
    yield at_most(
        "base_finite",
        e.num_nonfinite_steps,
        0,
        "steps with NaN or Infinity",
        "lower base.learning_rate",
        name,
    )
    yield from memorization_rules(policy, name, e)


def _sft_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, SftEvidence)
    yield check(
        "sft_holdout",
        e.split_method == "group",
        None,
        None,
        "==",
        f"SFT rows were held out by {'whole groups' if e.split_method == 'group' else 'single rows'}",
        "give SFT rows of several groups in each category",
        name,
        severity=CheckStatus.WARN,
    )
    yield at_most(
        "sft_finite", e.num_nonfinite_steps, 0, "steps with NaN or Infinity", "lower sft.learning_rate", name
    )


def _fit_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, FitEvidence)
    more = "train SFT longer, or simplify the rows that fail"
    if policy.min_sft_fit is not None:
        yield rate(policy, "sft_fit", e.overall, policy.min_sft_fit, "its own SFT rows", more, name)
    if policy.min_sft_group_fit is not None:
        for group in policy.min_eval_groups:
            yield rate(
                policy,
                f"skill_release_sft_{group}",
                e.groups.get(group),
                policy.min_sft_group_fit,
                f"its own {group} rows",
                more,
                name,
            )


def _heldout_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, FitEvidence)
    if policy.min_sft_heldout_fit is not None:
        yield rate(
            policy,
            "sft_heldout_fit",
            e.overall,
            policy.min_sft_heldout_fit,
            "SFT rows held out from training",
            "more and more varied SFT rows, or a better base model",
            name,
        )


def _eval_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, EvalEvidence)
    better = "a better base model or more SFT rows of this skill"
    if policy.min_eval_non_choice is not None:
        yield rate(
            policy,
            "eval_non_choice",
            e.non_choice,
            policy.min_eval_non_choice,
            "non-choice items",
            better,
            name,
        )
    yield _clean(policy, name, e)
    if policy.min_focus_eval is not None:
        focus = pooled(e.groups.get(group) for group in ("identity", "refusal", "choice"))
        yield rate(
            policy,
            "first_release_eval",
            focus,
            policy.min_focus_eval,
            "identity, refusal and choice items",
            better,
            name,
        )
    for group, minimum in policy.min_eval_groups.items():
        yield rate(
            policy,
            f"skill_release_eval_{group}",
            e.groups.get(group),
            minimum,
            f"{group} eval items",
            better,
            name,
        )
    if policy.min_choice_adjusted is not None:
        yield _choice_adjusted(policy, name, e, policy.min_choice_adjusted, better)
    if policy.min_unsafe_refusal is not None:
        yield rate(
            policy,
            "refusal",
            e.unsafe_refusal,
            policy.min_unsafe_refusal,
            "unanswerable items refused",
            "more refusal rows",
            name,
        )
    if policy.min_benign_answered is not None:
        yield rate(
            policy,
            "over_refusal",
            e.benign_answered,
            policy.min_benign_answered,
            "answerable items answered, not refused",
            "fewer refusal rows, or more varied ones",
            name,
        )
    yield rate_at_most(
        policy,
        "prompt_echo",
        e.prompt_echo,
        policy.max_prompt_echo,
        "replies that echo the prompt",
        "check the chat template and train SFT longer",
        name,
    )
    yield rate_at_most(
        policy,
        "unsupported_claims",
        e.unsupported_claims,
        policy.max_unsupported_claims,
        "replies with a forbidden phrase",
        "look at the failed items in the eval report",
        name,
        severity=CheckStatus.WARN,
    )


def _clean(policy: GatePolicy, name: str, e: EvalEvidence) -> Check:
    """A score that rests on contaminated items falls when they are left out."""
    gain = e.overall.pass_rate - e.clean.pass_rate if e.clean.num_examples else e.overall.pass_rate
    return at_most(
        "eval_clean_subset",
        gain,
        policy.max_clean_gain,
        f"of the pass rate is gained on contaminated items: {e.overall.pass_rate:.1%} of all "
        f"{e.overall.num_examples}, {e.clean.pass_rate:.1%} of the {e.clean.num_examples} clean ones",
        "replace the contaminated items, which the honesty report names",
        name,
        severity=CheckStatus.BLOCK if policy.block_contamination else CheckStatus.WARN,
    )


def _choice_adjusted(policy: GatePolicy, name: str, e: EvalEvidence, minimum: float, fix: str) -> Check:
    id = "choice_adjusted_accuracy"
    what = f"choice accuracy above guessing (guessing gives {e.choice_random_baseline:.2f})"
    if e.choice.num_examples < policy.min_examples:
        return too_few(policy, id, e.choice, minimum, ">=", what, name)
    return at_least(id, e.choice_accuracy_adjusted, minimum, what, fix, name)


RULES: dict[str, Callable[[GatePolicy, str, Evidence], Iterator[Check]]] = {
    "honesty": honesty_rules,
    "preflight": preflight_rules,
    "base": _base_rules,
    "sft": _sft_rules,
    "sft_fit": _fit_rules,
    "sft_fit_heldout": _heldout_rules,
    "eval": _eval_rules,
    "audit": audit_rules,
}
