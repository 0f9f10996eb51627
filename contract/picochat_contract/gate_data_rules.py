"""The gate's rules about data: leaks, contamination, preflight, and what the model gives back of its training text."""

from collections.abc import Iterator
from typing import Final

from picochat_contract.evidence import (
    AuditEvidence,
    BaseEvidence,
    Compared,
    Evidence,
    HonestyEvidence,
    PairEvidence,
    PreflightEvidence,
)
from picochat_contract.gate_checks import at_most, check, presence, rate_at_most, too_few
from picochat_contract.gate_report import Check, CheckStatus
from picochat_contract.policies import GatePolicy

REQUIRED_PAIRS: Final = ("corpus_vs_eval", "sft_vs_eval")
"""Without these two a matrix says nothing about the score."""
TRAINED: Final = ("corpus", "sft", "preferences")
JUDGED: Final = ("eval", "external")
"""Items of these must not stand in what trains; what they share with each other gives nothing away."""
_LESS_OFTEN: Final = "train fewer epochs, or on more and less repeated text"


def honesty_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, HonestyEvidence)
    yield at_most(
        "data_honesty",
        e.exact_prompt_leaks,
        policy.max_exact_prompt_leaks,
        "eval prompts that stand in SFT rows",
        "remove the leaked rows from the SFT file (the honesty report names them) and train again",
        name,
    )
    yield at_most(
        "preference_honesty",
        e.preference_prompt_leaks,
        policy.max_exact_prompt_leaks,
        "eval prompts that stand in preference rows",
        "remove the leaked rows from the preference file (the honesty report names them) and train again",
        name,
    )
    yield at_most(
        "release_data_honesty",
        e.corpus_prompt_hits,
        policy.max_corpus_prompt_hits,
        "eval prompts found in the corpus",
        "remove them from the corpus or replace the eval items",
        name,
    )
    yield at_most(
        "near_prompt_leaks",
        e.near_prompt_leaks / e.num_eval if e.num_eval else 0.0,
        policy.max_near_prompt_rate,
        f"of {e.num_eval} eval prompts have an edited copy among the tuning rows ({e.near_prompt_leaks})",
        "remove the edited copies that the honesty report names, or replace the eval items",
        name,
        severity=_severity(policy),
    )
    yield at_most(
        "duplicate_eval_prompts",
        e.duplicate_eval_prompts,
        0,
        "repeated eval prompts",
        "keep each eval prompt once",
        name,
        severity=CheckStatus.WARN,
    )
    yield from _matrix(policy, name, e)


def preflight_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, PreflightEvidence)
    waived = [c.id for c in e.checks if c.status == "block" and c.waived_by is not None]
    blocked = e.status == "blocked" or any(c.status == "block" for c in e.checks)
    yield presence(
        "preflight",
        not blocked,
        f"preflight {e.status}: {e.summary}" + (f"; waived: {', '.join(waived)}" if waived else ""),
        "mend what preflight blocks (preflight.md says how) and run again without waiving it",
        name,
    )


def audit_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, AuditEvidence)
    yield at_most(
        "trained_prompt_hits",
        e.trained_prompt_hits,
        policy.max_exact_prompt_leaks,
        "eval prompts in what was really trained on",
        "remove them from corpus and rows (the audit report names them) and train again",
        name,
    )
    yield rate_at_most(
        policy,
        "copied_text",
        e.copied,
        policy.max_copied_rate,
        "generated texts that give back a long span of the corpus",
        "train fewer epochs, or on more and less repeated text",
        name,
        severity=_severity(policy),
    )
    yield from _matrix(policy, name, e)


def memorization_rules(policy: GatePolicy, name: str, e: BaseEvidence) -> Iterator[Check]:
    """Canaries, and training spans that come back more often than held-out ones."""
    yield _canary(policy, name, e)
    if e.exposure_bits is not None and e.control_exposure_bits is not None:
        yield check(
            "memorization_exposure",
            e.exposure_bits <= e.control_exposure_bits + policy.max_exposure_gain,
            e.exposure_bits,
            e.control_exposure_bits + policy.max_exposure_gain,
            "<=",
            f"bits of exposure, the median of {e.canary_count} canaries that were inserted once; "
            f"{e.control_exposure_bits:.1f} for secrets that were never inserted",
            _LESS_OFTEN,
            name,
            severity=CheckStatus.WARN,
        )
    floor = e.extractable_heldout
    what = (
        f"training spans that greedy decoding gives back ({floor.pass_rate:.1%} of held-out spans: what ordinary "
        "prediction reaches)"
    )
    if policy.max_extractable is not None:
        yield rate_at_most(
            policy, "memorization_extractable", e.extractable, policy.max_extractable, what, _LESS_OFTEN, name
        )
    if min(e.extractable.num_examples, floor.num_examples) < policy.min_examples:
        fewer = min(e.extractable, floor, key=lambda score: score.num_examples)
        yield too_few(
            policy, "memorization_above_floor", fewer, floor.high, "<=", what, name, CheckStatus.WARN
        )
        return
    yield check(
        "memorization_above_floor",
        e.extractable.low <= floor.high,
        e.extractable.pass_rate,
        floor.high,
        "<=",
        f"{e.extractable.num_passed} of {e.extractable.num_examples} {what}",
        _LESS_OFTEN,
        name,
        score=e.extractable,
        severity=CheckStatus.WARN,
    )


def _canary(policy: GatePolicy, name: str, e: BaseEvidence) -> Check:
    if e.canary_count == 0:
        return Check(
            id="memorization_canary",
            status=CheckStatus.WARN,
            measured=None,
            threshold=policy.max_canary_hits,
            comparison="<=",
            num_examples=0,
            message="no canary was planted, so memorization was not measured",
            fix="set base.canary_count to 1 or more",
            evidence=name,
        )
    return at_most(
        "memorization_canary",
        e.canary_hits,
        policy.max_canary_hits,
        f"of {e.canary_count} canaries that were inserted once came out of the model",
        "train fewer epochs or on more text",
        name,
    )


def _matrix(policy: GatePolicy, name: str, e: Compared) -> Iterator[Check]:
    by_name = {pair.pair: pair for pair in e.contamination_matrix.pairs}
    for required in REQUIRED_PAIRS:
        if required not in by_name:
            yield presence(
                f"{name}_matrix_{required}",
                False,
                f"the contamination matrix has no pair {required}",
                f"run the {name} stage again",
                name,
            )
    for pair in e.contamination_matrix.pairs:
        reference, _, target = pair.pair.partition("_vs_")
        if reference in TRAINED and target in JUDGED:
            yield _pair(policy, name, pair)


def _pair(policy: GatePolicy, name: str, pair: PairEvidence) -> Check:
    id = f"{name}_contamination_{pair.pair}"
    if pair.risk == "not_checked":
        return presence(
            id, False, f"{pair.pair} was not checked: {pair.reason}", f"run the {name} stage again", name
        )
    share = pair.num_contaminated / pair.num_targets if pair.num_targets else 0.0
    return at_most(
        id,
        share,
        policy.max_contaminated_rate,
        f"of {pair.num_targets} items are contaminated by a published measure ({pair.num_contaminated}, {pair.pair})",
        "remove the passages that the report names from what trains, or replace the items",
        name,
        severity=_severity(policy),
    )


def _severity(policy: GatePolicy) -> CheckStatus:
    return CheckStatus.BLOCK if policy.block_contamination else CheckStatus.WARN
