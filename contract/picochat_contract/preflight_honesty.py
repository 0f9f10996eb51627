"""Preflight rules about what the honesty report found, and about rows that do not belong to the corpus."""

from typing import Final

from picochat_contract.data_configs import PydocSource
from picochat_contract.policies import POLICIES
from picochat_contract.preflight_rules import (
    RELEASE_PROFILES,
    Condition,
    Measured,
    Rule,
    Subject,
    Waiver,
    above,
    equal,
)
from picochat_contract.stages import StageName

LONG: Final = Condition.LONG
RELEASE: Final = Condition.RELEASE
MAX_NEAR: Final = POLICIES["skill_release"].max_near_prompt_rate


def _honesty_report(s: Subject) -> Measured:
    honesty = s.facts.honesty
    if honesty is None:
        return Measured(value="missing", message="there is no honesty report that can be read")
    facts = s.facts
    present: dict[str, tuple[object, object]] = {
        "corpus": (honesty.corpus_sha256, facts.corpus.sha256),
        "preferences": (honesty.preferences_sha256, facts.preferences and facts.preferences.sha256),
        "external benchmarks": (honesty.external_sha256, facts.external_sha256),
    }
    if facts.chat is not None:
        present["chat"] = (honesty.chat_sha256, facts.chat.sha256)
    if facts.eval is not None:
        present["eval"] = (honesty.eval_sha256, facts.eval.sha256)
    other = [name for name, (said, found) in present.items() if said != found]
    if other:
        return Measured(
            value="other files", message=f"the honesty report is not about this run's {' and '.join(other)}"
        )
    return Measured(value="present", message=f"honesty {honesty.status}, about these files")


def _leaks(s: Subject) -> Measured:
    h = s.facts.honesty
    if h is None:
        return Measured(value=0, message="not known without an honesty report")
    return Measured(
        value=h.exact_prompt_leaks + h.preference_prompt_leaks + h.external_leaks,
        message=f"{h.exact_prompt_leaks:,} eval prompts among SFT rows, {h.preference_prompt_leaks:,} among preference rows, "
        f"{h.external_leaks:,} external items among either",
    )


def _near(s: Subject) -> Measured:
    h = s.facts.honesty
    share = h.near_prompt_leaks / h.num_eval if h and h.num_eval else 0.0
    return Measured(
        value=share,
        message=f"{h.near_prompt_leaks if h else 0:,} eval prompts have an edited copy among the rows",
    )


def _corpus_hits(s: Subject) -> Measured:
    h = s.facts.honesty
    own, external = (h.corpus_prompt_hits, h.external_corpus_hits) if h else (0, 0)
    return Measured(
        value=own + external,
        message=f"{own:,} eval prompts and {external:,} external items stand in the corpus",
    )


def _eval_duplicates(s: Subject) -> Measured:
    count = s.facts.honesty.duplicate_eval_prompts if s.facts.honesty else 0
    return Measured(value=count, message=f"{count:,} eval prompts repeat an earlier one")


def _default_tuning_data(s: Subject) -> Measured:
    dataset = s.plan.dataset
    generated = [name for name, file in (("chat", dataset.chat), ("eval", dataset.eval)) if file is None]
    own_corpus = not all(isinstance(source, PydocSource) for source in dataset.sources)
    if not generated or not own_corpus or s.plan.gate.profile in RELEASE_PROFILES:
        said = f"generated {' and '.join(generated)} rows" if generated else "own chat and eval rows"
        return Measured(value="fitting", message=f"{said} for gate {s.plan.gate.profile}")
    by_preset = s.plan.scale != "custom"
    return Measured(
        value="planned by the preset" if by_preset else "generated",
        message=f"own corpus, but generated {' and '.join(generated)} rows, which say nothing of it"
        + (f"; scale {s.plan.scale} plans them" if by_preset else ""),
    )


HONESTY_RULES: Final = (
    Rule(
        id="honesty_report",
        measures="whether an honesty report is there and about these files",
        block=(equal("missing"), equal("other files")),
        unit="words",
        fix="run the honesty stage again",
        measure=_honesty_report,
        waiver=Waiver.LEAKY_EVAL,
    ),
    Rule(
        id="honesty",
        measures="eval prompts and external items among SFT and preference rows, exact or after normalisation",
        block=(above(0),),
        fix="remove the leaked rows; honesty/report.md names both places of each",
        measure=_leaks,
        waiver=Waiver.LEAKY_EVAL,
    ),
    Rule(
        id="honesty_near",
        measures="share of the eval prompts with an edited copy among SFT or preference rows",
        warn=(above(0),),
        block=(above(MAX_NEAR, LONG, RELEASE),),
        unit="share",
        fix="remove the edited copies that honesty/report.md names",
        measure=_near,
        waiver=Waiver.LEAKY_EVAL,
    ),
    Rule(
        id="honesty_corpus",
        measures="eval prompts and external items found in the corpus",
        warn=(above(0),),
        block=(above(0, LONG, RELEASE),),
        fix="drop the documents that honesty/report.md names, or the eval items",
        measure=_corpus_hits,
        waiver=Waiver.LEAKY_EVAL,
    ),
    Rule(
        id="eval_duplicate_prompts",
        measures="eval prompts that repeat an earlier one",
        warn=(above(0),),
        fix="remove the repeated items: they count twice",
        measure=_eval_duplicates,
        waiver=Waiver.LEAKY_EVAL,
    ),
    Rule(
        id="default_tuning_data",
        measures="generated rows beside an own corpus, where the gate is not about the generated skills",
        warn=(equal("generated"), equal("planned by the preset")),
        block=(equal("generated", LONG),),
        unit="words",
        fix="give dataset.chat and dataset.eval, or a gate profile that judges the generated skills",
        measure=_default_tuning_data,
        waiver=Waiver.DEFAULT_TUNING_DATA,
        stage=StageName.SFT,
    ),
)
