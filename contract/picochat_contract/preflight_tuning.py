"""Preflight rules about SFT rows and eval items."""

import math
from typing import Final

from picochat_contract.policies import POLICIES, SKILL_GROUPS
from picochat_contract.preflight_rules import (
    Condition,
    Measured,
    Rule,
    Subject,
    above,
    below,
    equal,
    not_measured,
)
from picochat_contract.stages import StageName

LONG: Final = Condition.LONG
SKILL_RELEASE: Final = Condition.SKILL_RELEASE
FOCUS: Final = ("identity", "refusal", "choice")
"""What the first_release gate scores together."""
SAFE_SFT_LR: Final = 2e-4
MIN_EXTERNAL: Final = POLICIES["skill_release"].min_external_examples


def _chat_readiness(s: Subject) -> Measured:
    chat = s.facts.chat
    if chat is None or not chat.num_rows or chat.num_invalid:
        said = (
            "no SFT rows" if chat is None or not chat.num_rows else f"{chat.num_invalid:,} lines are no rows"
        )
        return Measured(value="blocked", message=said)
    caution = chat.num_rows < 8 or chat.num_duplicate_prompts > 0.25 * chat.num_rows
    said = f"{chat.num_rows:,} rows, {chat.num_duplicate_prompts:,} with the prompt of an earlier one"
    return Measured(value="caution" if caution else "ready", message=said)


def _sft_rows(s: Subject) -> Measured:
    count = s.facts.chat.num_rows if s.facts.chat else 0
    return Measured(value=count, message=f"{count:,} SFT rows")


def _sft_duplicates(s: Subject) -> Measured:
    chat = s.facts.chat
    share = chat.num_duplicate_prompts / chat.num_rows if chat and chat.num_rows else 0.0
    return Measured(value=share, message=f"{share:.1%} of the rows repeat the prompt of an earlier one")


def _sft_balance(s: Subject) -> Measured:
    skills = s.facts.chat.skills if s.facts.chat else {}
    counts = s.facts.chat.categories if s.facts.chat else {}
    categories = [name for name, count in counts.items() if name and count]
    if s.plan.gate.profile == "skill_release":
        missing = [group for group in SKILL_GROUPS if not skills.get(group)]
        return Measured(
            value="groups missing" if missing else "balanced",
            message=f"no rows of {', '.join(missing)}" if missing else "rows of all five skill groups",
        )
    if s.plan.gate.profile == "first_release":
        narrow = sum(bool(skills.get(group)) for group in FOCUS) < 2 and len(categories) < 4
    else:
        narrow = len(categories) < 4
    return Measured(value="narrow" if narrow else "balanced", message=f"{len(categories)} categories")


def _answer_length(s: Subject) -> Measured:
    mean = s.facts.chat.mean_open_answer_words if s.facts.chat else None
    said = "no open answers" if mean is None else f"open answers have {mean:.1f} words on average"
    return Measured(value=mean, message=said)


def _sft_exposure(s: Subject) -> Measured:
    epochs = s.budget.estimated_sft_example_epochs
    said = "no SFT rows" if epochs is None else f"every SFT row is seen {epochs:.2g} times"
    return Measured(value=epochs, message=said)


def _sft_lr(s: Subject) -> Measured:
    sft, base = s.budget.sft_configured_learning_rate, s.budget.base_configured_learning_rate
    return Measured(value=sft / base, message=f"sft.learning_rate {sft:g}, base.learning_rate {base:g}")


def _sft_effective_lr(s: Subject) -> Measured:
    b = s.budget
    allowed = max(SAFE_SFT_LR, b.base_effective_learning_rate / 2)
    return Measured(
        value=b.sft_effective_learning_rate / allowed,
        message=f"the optimizer gets {b.sft_effective_learning_rate:g}; {allowed:g} is the larger of {SAFE_SFT_LR:g} and "
        "half of the base stage's",
    )


def _sft_batch_scaling(s: Subject) -> Measured:
    b = s.budget
    batches = math.sqrt(b.sft_effective_batch_size / b.base_effective_batch_size)
    ratio = b.sft_effective_learning_rate / (b.base_effective_learning_rate * batches)
    return Measured(
        value=ratio,
        message=f"{b.sft_effective_learning_rate:.2g} with {b.sft_effective_batch_size:,} rows is {ratio:.2g} of the base "
        f"stage's rate, moved to that batch by its square root",
    )


def _eval_readiness(s: Subject) -> Measured:
    items = s.facts.eval
    if (
        items is None
        or not items.num_items
        or items.num_invalid
        or items.num_without_rules == items.num_items
    ):
        return Measured(value="blocked", message="no eval items that can be judged")
    caution = items.num_items < 4 or not items.num_unanswerable
    said = f"{items.num_items:,} items, {items.num_unanswerable:,} of them unanswerable"
    return Measured(value="caution" if caution else "ready", message=said)


def _eval_rows(s: Subject) -> Measured:
    count = s.facts.eval.num_items if s.facts.eval else 0
    return Measured(value=count, message=f"{count:,} eval items")


def _eval_rules(s: Subject) -> Measured:
    count = s.facts.eval.num_without_rules if s.facts.eval else 0
    return Measured(value=count, message=f"{count:,} eval items that any reply would pass")


def _unanswerable(s: Subject) -> Measured:
    count = s.facts.eval.num_unanswerable if s.facts.eval else 0
    return Measured(value=count, message=f"{count:,} items whose right reply is a refusal")


def _eval_splits(s: Subject) -> Measured:
    labels = s.facts.eval.labels if s.facts.eval else ()
    return Measured(value=len(labels), message=f"splits and levels: {', '.join(labels) or 'none'}")


def _eval_coverage(s: Subject) -> Measured:
    skills = s.facts.eval.skills if s.facts.eval else {}
    missing = [group for group in SKILL_GROUPS if not skills.get(group)]
    said = f"no items of {', '.join(missing)}" if missing else "items of all five skill groups"
    return Measured(value=len(missing), message=said)


def _external(s: Subject) -> Measured:
    large = [name for name, count in s.facts.external.items() if count >= MIN_EXTERNAL]
    given = ", ".join(f"{name} ({count:,} items)" for name, count in s.facts.external.items())
    return Measured(value=len(large), message=f"external benchmarks: {given or 'none'}")


SFT_RULES: Final = (
    Rule(
        id="chat_sft_readiness",
        measures="status of the SFT rows: blocked without rows or with a wrong one, caution under 8 rows",
        warn=(equal("caution"),),
        block=(equal("blocked"),),
        unit="words",
        fix="mend the rows; `picochat data inspect` lists what is wrong with line numbers",
        measure=_chat_readiness,
        stage=StageName.SFT,
    ),
    Rule(
        id="sft_rows",
        measures="SFT rows",
        warn=(below(32), below(500, LONG)),
        block=(below(1), below(300, LONG)),
        fix="give more rows: dataset.chat, or a larger dataset.sft_rows where they are generated",
        measure=_sft_rows,
        stage=StageName.SFT,
    ),
    Rule(
        id="sft_duplicate_prompts",
        measures="share of the SFT rows that repeat an earlier prompt",
        warn=(above(0.10),),
        block=(above(0.25, LONG),),
        unit="share",
        fix="remove the repeated prompts",
        measure=_sft_duplicates,
        stage=StageName.SFT,
    ),
    Rule(
        id="sft_category_balance",
        measures="skill_release: all five skill groups; else four categories, or two of the focus groups for first_release",
        warn=(equal("narrow", LONG),),
        block=(equal("groups missing", SKILL_RELEASE),),
        unit="words",
        fix="add rows of the missing groups (identity, refusal, bench_choice, bench_math_ and bench_spelling_ begin their "
        "categories), or choose another gate.profile than skill_release",
        measure=_sft_balance,
        stage=StageName.SFT,
    ),
    Rule(
        id="sft_answer_length",
        measures="mean words of SFT answers outside the skill groups, whose right answers are short",
        warn=(below(6, LONG),),
        unit="number",
        fix="give answers in whole sentences: the model learns to be as short as they are",
        measure=_answer_length,
        stage=StageName.SFT,
    ),
    Rule(
        id="sft_exposure",
        measures="epochs over the SFT rows",
        warn=(above(25), below(1, LONG)),
        block=(above(60, LONG), not_measured(LONG)),
        unit="number",
        fix="set sft.max_steps to about {recommended_sft_steps}, which is three epochs",
        measure=_sft_exposure,
        stage=StageName.SFT,
    ),
    Rule(
        id="sft_lr",
        measures="configured SFT learning rate over the base stage's",
        warn=(above(1, LONG),),
        unit="number",
        fix="set sft.learning_rate to a fifth of base.learning_rate or less",
        measure=_sft_lr,
        stage=StageName.SFT,
    ),
    Rule(
        id="sft_effective_lr",
        measures="SFT learning rate after scaling, over the larger of 2e-4 and half of the base stage's",
        warn=(above(1, LONG),),
        unit="number",
        fix="lower sft.learning_rate",
        measure=_sft_effective_lr,
        stage=StageName.SFT,
    ),
    Rule(
        id="sft_lr_batch_scaling",
        measures="SFT learning rate over the base stage's, moved to the SFT batch by its square root",
        warn=(below(0.01, LONG), above(1, LONG)),
        unit="number",
        fix="bring sft.learning_rate between a hundredth and the whole of the base rate for that batch",
        measure=_sft_batch_scaling,
        stage=StageName.SFT,
    ),
)

EVAL_RULES: Final = (
    Rule(
        id="eval_readiness",
        measures="status of the eval items: blocked without items that can be judged, caution under 4 or none unanswerable",
        warn=(equal("caution"),),
        block=(equal("blocked"),),
        unit="words",
        fix="mend the items; `picochat data inspect` lists what is wrong with line numbers",
        measure=_eval_readiness,
        stage=StageName.EVAL,
    ),
    Rule(
        id="eval_rows",
        measures="eval items",
        warn=(below(16), below(100, LONG)),
        block=(below(1), below(80, LONG)),
        fix="give more items: dataset.eval, or a larger dataset.eval_rows where they are generated",
        measure=_eval_rows,
        stage=StageName.EVAL,
    ),
    Rule(
        id="eval_rules",
        measures="eval items without a rule, item by item",
        warn=(above(0),),
        block=(above(0, LONG),),
        fix="give each item a rule, such as must_include",
        measure=_eval_rules,
        stage=StageName.EVAL,
    ),
    Rule(
        id="unanswerable_eval",
        measures="eval items whose right reply is a refusal",
        warn=(below(2, LONG),),
        fix="add items with answerable: false",
        measure=_unanswerable,
        stage=StageName.EVAL,
    ),
    Rule(
        id="eval_splits",
        measures="different names of split and level among the eval items",
        warn=(below(2, LONG),),
        fix="label items by split or level, such as heldout, transfer and adversarial",
        measure=_eval_splits,
        stage=StageName.EVAL,
    ),
    Rule(
        id="eval_skill_release_coverage",
        measures="skill groups without an eval item",
        block=(above(0, SKILL_RELEASE),),
        fix="add items of the missing groups, or choose another gate.profile than skill_release",
        measure=_eval_coverage,
        stage=StageName.EVAL,
    ),
    Rule(
        id="external_eval",
        measures=f"external benchmarks of {MIN_EXTERNAL} items or more",
        # No block: a benchmark can be scored on the finished checkpoint, nothing has to be trained again for it.
        warn=(below(1, SKILL_RELEASE),),
        fix="give one: dataset.external, or --external-eval name=path; the skill_release gate blocks without",
        measure=_external,
        stage=StageName.GATE,
    ),
)
