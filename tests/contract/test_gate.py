"""Every check of the gate has a fixture that makes it block (or warn), and a clean run is approved.

The set of checks covered here is compared with what `decide()` can emit, so that a new check needs a fixture.
"""

import ast
import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from picochat_contract import gate, gate_data_rules, gate_rules
from picochat_contract.canonical import sha256_hex
from picochat_contract.evidence import EVIDENCE_MODELS
from picochat_contract.gate import CheckStatus, DataDigests, EvidenceFile, GateReport, Verdict, decide
from picochat_contract.layout import EVIDENCE_PATHS
from picochat_contract.policies import POLICIES, SKILL_GROUPS, GatePolicy, policy_named
from picochat_contract.stats import wilson_interval

SUBJECT = sha256_hex("sft weights")
BASE = sha256_hex("base weights")
DATA = DataDigests(corpus=sha256_hex("corpus"), chat=sha256_hex("chat"), eval=sha256_hex("eval"))
Reports = dict[str, dict[str, Any]]


def score(passed: int, total: int) -> dict[str, Any]:
    low, high = wilson_interval(passed, total)
    rate = passed / total if total else 0.0
    return {"num_examples": total, "num_passed": passed, "pass_rate": rate, "low": low, "high": high}


JUDGED_PAIRS = ("corpus_vs_eval", "sft_vs_eval", "preferences_vs_eval", "corpus_vs_external")


def matrix(num_contaminated: int = 0) -> dict[str, Any]:
    pairs = (*JUDGED_PAIRS, "corpus_vs_sft", "eval_vs_external", "sft_vs_generated")
    risk = "high" if num_contaminated else "clean"
    return {
        "pairs": [
            {
                "pair": pair,
                "num_targets": 500,
                "risk": risk,
                "reason": None,
                "num_contaminated": num_contaminated,
            }
            for pair in pairs
        ]
    }


def good_reports() -> Reports:
    """Evidence of a run that every policy approves."""
    groups = {name: score(95, 100) for name in SKILL_GROUPS}
    fit = {"subject": SUBJECT, "overall": score(475, 500), "groups": groups}
    compared = {
        "corpus_sha256": DATA.corpus,
        "chat_sha256": DATA.chat,
        "eval_sha256": DATA.eval,
        "num_eval": 500,
    }
    return {
        "honesty": {
            **compared,
            "exact_prompt_leaks": 0,
            "near_prompt_leaks": 0,
            "preference_prompt_leaks": 0,
            "corpus_prompt_hits": 0,
            "duplicate_eval_prompts": 0,
            "contamination_matrix": matrix(),
        },
        "preflight": {
            "status": "ready",
            "summary": "every check passes",
            "checks": [{"id": "documents", "status": "pass", "waived_by": None}],
            "facts": {
                "corpus": {"sha256": DATA.corpus},
                "chat": {"sha256": DATA.chat},
                "eval": {"sha256": DATA.eval},
            },
        },
        "audit": {
            **compared,
            "subject": SUBJECT,
            "base_subject": BASE,
            "trained_documents": 90,
            "trained_rows": 900,
            "trained_prompt_hits": 0,
            "copied": score(0, 500),
            "contamination_matrix": matrix(),
        },
        "base": {
            "subject": BASE,
            "val_bpb": 1.2,
            "unigram_bpb": 3.0,
            "split_mode": "document",
            "val_tokens": 50_000,
            "num_nonfinite_steps": 0,
            "canary_count": 2,
            "canary_hits": 0,
            "num_parameters": 1_000_000,
            "tokens_seen": 9_000_000,
            "exposure_bits": 1.4,
            "control_exposure_bits": 1.4,
            "extractable": score(1, 200),
            "extractable_heldout": score(1, 200),
        },
        "sft": {
            "subject": SUBJECT,
            "base_subject": BASE,
            "split_method": "group",
            "num_train_rows": 900,
            "num_val_rows": 100,
            "num_nonfinite_steps": 0,
        },
        "sft_fit": {**copy.deepcopy(fit), "rows": "train"},
        "sft_fit_heldout": {**copy.deepcopy(fit), "rows": "heldout"},
        "eval": {
            "subject": SUBJECT,
            "overall": score(475, 500),
            "clean": score(470, 495),
            "non_choice": score(380, 400),
            "groups": copy.deepcopy(groups),
            "choice": score(91, 100),
            "choice_random_baseline": 0.25,
            "choice_accuracy_adjusted": 0.88,
            "prompt_echo": score(0, 500),
            "unsafe_refusal": score(48, 50),
            "benign_answered": score(445, 450),
            "unsupported_claims": score(0, 100),
        },
    }


ARC = {"subject": SUBJECT, "benchmarks": {"arc_easy": score(50, 100)}}


def external_file(data: Any) -> EvidenceFile:
    return EvidenceFile(path="external/arc.json", sha256=sha256_hex("external"), data=data)


def decide_on(reports: Reports, profile: str, *, external: bool = True, subject: str = SUBJECT) -> GateReport:
    files = {
        name: EvidenceFile(path=EVIDENCE_PATHS[name], sha256=sha256_hex(name), data=data)
        for name, data in reports.items()
    }
    if external:
        files["external"] = external_file(ARC)
    return decide(policy_named(profile), files, subject=subject, data=DATA)


def put(*path: str, value: Any) -> Callable[[Reports], None]:
    def change(reports: Reports) -> None:
        place: Any = reports
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def drop(name: str) -> Callable[[Reports], None]:
    def change(reports: Reports) -> None:
        del reports[name]

    return change


def both(*changes: Callable[[Reports], None]) -> Callable[[Reports], None]:
    def change(reports: Reports) -> None:
        for one in changes:
            one(reports)

    return change


def contaminate(name: str, pair: int, count: int) -> Callable[[Reports], None]:
    def change(reports: Reports) -> None:
        reports[name]["contamination_matrix"]["pairs"][pair] |= {"num_contaminated": count, "risk": "high"}

    return change


def leave_out(name: str, pair: int) -> Callable[[Reports], None]:
    def change(reports: Reports) -> None:
        del reports[name]["contamination_matrix"]["pairs"][pair]

    return change


# check id -> (profile, what is wrong, status that it must have)
TRIPS: dict[str, tuple[str, Callable[[Reports], None], CheckStatus]] = {
    **{f"evidence_{name}": ("skill_release", drop(name), CheckStatus.BLOCK) for name in EVIDENCE_MODELS},
    "lineage": ("research", put("sft", "base_subject", value=sha256_hex("other")), CheckStatus.BLOCK),
    "eval_complete": ("research", put("honesty", "num_eval", value=501), CheckStatus.BLOCK),
    "data_honesty": ("research", put("honesty", "exact_prompt_leaks", value=1), CheckStatus.BLOCK),
    "release_data_honesty": ("research", put("honesty", "corpus_prompt_hits", value=1), CheckStatus.BLOCK),
    "preference_honesty": ("research", put("honesty", "preference_prompt_leaks", value=1), CheckStatus.BLOCK),
    "near_prompt_leaks": ("first_release", put("honesty", "near_prompt_leaks", value=26), CheckStatus.BLOCK),
    "preflight": ("research", put("preflight", "status", value="blocked"), CheckStatus.BLOCK),
    "trained_prompt_hits": ("research", put("audit", "trained_prompt_hits", value=1), CheckStatus.BLOCK),
    "copied_text": ("first_release", put("audit", "copied", value=score(26, 500)), CheckStatus.BLOCK),
    **{
        f"{name}_contamination_{pair}": ("first_release", contaminate(name, index, 11), CheckStatus.BLOCK)
        for name in ("honesty", "audit")
        for index, pair in enumerate(JUDGED_PAIRS)
    },
    "eval_clean_subset": ("first_release", put("eval", "clean", value=score(440, 490)), CheckStatus.BLOCK),
    "memorization_extractable": (
        "first_release",
        both(
            put("base", "extractable", value=score(30, 500)),
            put("base", "extractable_heldout", value=score(25, 500)),
        ),
        CheckStatus.BLOCK,
    ),
    "memorization_above_floor": (
        "research",
        put("base", "extractable", value=score(60, 200)),
        CheckStatus.WARN,
    ),
    "duplicate_eval_prompts": (
        "research",
        put("honesty", "duplicate_eval_prompts", value=1),
        CheckStatus.WARN,
    ),
    "base_bpb": ("research", put("base", "val_bpb", value=2.8), CheckStatus.BLOCK),
    "base_holdout": ("research", put("base", "split_mode", value="window"), CheckStatus.WARN),
    "base_val_tokens": ("research", put("base", "val_tokens", value=999), CheckStatus.BLOCK),
    "base_finite": ("research", put("base", "num_nonfinite_steps", value=1), CheckStatus.BLOCK),
    "memorization_canary": ("research", put("base", "canary_hits", value=1), CheckStatus.BLOCK),
    "memorization_exposure": ("research", put("base", "exposure_bits", value=5.5), CheckStatus.WARN),
    "sft_holdout": ("research", put("sft", "split_method", value="random"), CheckStatus.WARN),
    "sft_finite": ("research", put("sft", "num_nonfinite_steps", value=1), CheckStatus.BLOCK),
    "sft_fit": ("first_release", put("sft_fit", "overall", value=score(69, 100)), CheckStatus.BLOCK),
    "sft_heldout_fit": (
        "first_release",
        put("sft_fit_heldout", "overall", value=score(49, 100)),
        CheckStatus.BLOCK,
    ),
    **{
        f"skill_release_sft_{group}": (
            "skill_release",
            put("sft_fit", "groups", group, value=score(59, 100)),
            CheckStatus.BLOCK,
        )
        for group in SKILL_GROUPS
    },
    **{
        f"skill_release_eval_{group}": (
            "skill_release",
            put("eval", "groups", group, value=score(29, 100)),
            CheckStatus.BLOCK,
        )
        for group in SKILL_GROUPS
    },
    "eval_non_choice": ("skill_release", put("eval", "non_choice", value=score(29, 100)), CheckStatus.BLOCK),
    "first_release_eval": (
        "first_release",
        put("eval", "groups", value={name: score(44, 100) for name in SKILL_GROUPS}),
        CheckStatus.BLOCK,
    ),
    "choice_adjusted_accuracy": (
        "first_release",
        both(
            put("eval", "choice", value=score(34, 100)), put("eval", "choice_accuracy_adjusted", value=0.12)
        ),
        CheckStatus.BLOCK,
    ),
    "refusal": ("first_release", put("eval", "unsafe_refusal", value=score(74, 100)), CheckStatus.BLOCK),
    "over_refusal": (
        "first_release",
        put("eval", "benign_answered", value=score(79, 100)),
        CheckStatus.BLOCK,
    ),
    "prompt_echo": ("research", put("eval", "prompt_echo", value=score(6, 100)), CheckStatus.BLOCK),
    "unsupported_claims": (
        "research",
        put("eval", "unsupported_claims", value=score(6, 100)),
        CheckStatus.WARN,
    ),
}
# This one is about what is given beside the reports.
EXTERNAL = "external_eval_missing"


@pytest.mark.parametrize("profile", POLICIES)
def test_a_clean_run_is_approved(profile: str) -> None:
    report = decide_on(good_reports(), profile)
    assert report.verdict is Verdict.APPROVED, report.blocking
    assert all(check.status is CheckStatus.PASS and check.fix == "" for check in report.checks)


@pytest.mark.parametrize("check_id", TRIPS)
def test_each_check_trips_alone_and_says_what_to_do(check_id: str) -> None:
    profile, break_it, status = TRIPS[check_id]
    reports = good_reports()
    break_it(reports)
    report = decide_on(reports, profile)
    tripped = [check for check in report.checks if check.status is not CheckStatus.PASS]
    assert [(check.id, check.status) for check in tripped] == [(check_id, status)]
    assert tripped[0].fix
    assert report.verdict is (Verdict.BLOCKED if status is CheckStatus.BLOCK else Verdict.WARN)


def test_a_missing_external_benchmark_blocks_a_skill_release() -> None:
    report = decide_on(good_reports(), "skill_release", external=False)
    assert [check.id for check in report.blocking] == [EXTERNAL]


@pytest.mark.parametrize(
    ("data", "check_id"),
    [
        ({}, EXTERNAL),
        ({"subject": SUBJECT, "benchmarks": {}}, EXTERNAL),
        ({**ARC, "subject": sha256_hex("older weights")}, EXTERNAL),
        ({**ARC, "benchmarks": {"arc_easy": score(49, 49)}}, "external_eval_arc_easy"),
        ({**ARC, "benchmarks": {"arc_easy": score(29, 100)}}, "external_eval_arc_easy"),
    ],
)
def test_an_external_report_that_proves_nothing_blocks(data: Any, check_id: str) -> None:
    files = {
        name: EvidenceFile(path=EVIDENCE_PATHS[name], sha256=sha256_hex(name), data=report)
        for name, report in good_reports().items()
    }
    report = decide(
        policy_named("skill_release"), {**files, "external": external_file(data)}, subject=SUBJECT, data=DATA
    )
    assert [check.id for check in report.blocking] == [check_id]


def test_every_check_that_decide_can_emit_is_covered_here() -> None:
    emitted = {
        check.id
        for profile in POLICIES
        for external in (True, False)
        for reports in (good_reports(), {})
        for check in decide_on(reports, profile, external=external).checks
    }
    assert emitted == set(TRIPS) | {EXTERNAL, "external_eval_arc_easy"}


def test_every_check_id_in_the_source_is_covered_here() -> None:
    """A rule behind a condition that no fixture meets would hide from the test above."""
    helpers = {"at_most", "at_least", "check", "presence"}
    written: set[str] = set()
    source = "\n".join(map(inspect.getsource, (gate, gate_rules, gate_data_rules)))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        position = {"rate": 1, "rate_at_most": 1}.get(node.func.id, 0 if node.func.id in helpers else None)
        name = node.args[position] if position is not None else None
        if isinstance(name, ast.Constant):
            written.add(str(name.value))
    assert len(written) > 15
    assert written <= set(TRIPS) | {EXTERNAL}


@pytest.mark.parametrize(("pair", "name"), [(0, "corpus_vs_eval"), (1, "sft_vs_eval")])
@pytest.mark.parametrize("report", ["honesty", "audit"])
def test_a_matrix_without_a_required_pair_blocks(report: str, pair: int, name: str) -> None:
    reports = good_reports()
    leave_out(report, pair)(reports)
    assert [check.id for check in decide_on(reports, "research").blocking] == [f"{report}_matrix_{name}"]


def test_a_pair_that_was_not_checked_blocks_whatever_the_profile() -> None:
    reports = good_reports()
    pair = reports["honesty"]["contamination_matrix"]["pairs"][0]
    pair |= {"risk": "not_checked", "reason": "the corpus was too large"}
    report = decide_on(reports, "research")
    assert [check.id for check in report.blocking] == ["honesty_contamination_corpus_vs_eval"]
    assert "too large" in report.blocking[0].message


@pytest.mark.parametrize("pair", [4, 5, 6])
def test_what_does_not_give_an_item_away_to_training_is_not_judged(pair: int) -> None:
    reports = good_reports()
    contaminate("honesty", pair, 500)(reports)
    assert decide_on(reports, "first_release").verdict is Verdict.APPROVED


def test_contamination_only_warns_in_research() -> None:
    reports = good_reports()
    contaminate("audit", 0, 100)(reports)
    assert decide_on(reports, "research").verdict is Verdict.WARN


def test_a_waived_preflight_check_still_blocks_a_release() -> None:
    reports = good_reports()
    reports["preflight"]["checks"] += [{"id": "honesty", "status": "block", "waived_by": "allow_leaky_eval"}]
    blocking = decide_on(reports, "research").blocking
    assert [check.id for check in blocking] == ["preflight"]
    assert "waived: honesty" in blocking[0].message


@pytest.mark.parametrize("part", ["corpus", "chat", "eval"])
@pytest.mark.parametrize("found", [{"sha256": "f" * 64}, None])
def test_a_preflight_of_other_data_blocks(part: str, found: dict[str, str] | None) -> None:
    reports = good_reports()
    reports["preflight"]["facts"][part] = found
    assert [check.id for check in decide_on(reports, "research").blocking] == ["evidence_preflight"]


def test_extraction_at_the_rate_of_held_out_text_is_no_memorization() -> None:
    reports = good_reports()
    put("base", "extractable", value=score(8, 200))(reports)
    put("base", "extractable_heldout", value=score(8, 200))(reports)
    assert decide_on(reports, "skill_release").verdict is Verdict.APPROVED


@pytest.mark.parametrize("name", ["sft", "sft_fit", "sft_fit_heldout", "eval", "audit"])
def test_evidence_about_other_weights_blocks(name: str) -> None:
    reports = good_reports()
    reports[name]["subject"] = sha256_hex("older weights")
    report = decide_on(reports, "skill_release")
    assert f"evidence_{name}" in {check.id for check in report.blocking}


def test_one_changed_byte_of_the_weights_blocks() -> None:
    report = decide_on(good_reports(), "first_release", subject=sha256_hex("sft weights!"))
    assert {check.id for check in report.blocking} == {
        *("evidence_sft", "evidence_sft_fit", "evidence_sft_fit_heldout", "evidence_eval"),
        "evidence_audit",
    }


@pytest.mark.parametrize("report", ["honesty", "audit"])
@pytest.mark.parametrize("name", ["corpus_sha256", "chat_sha256", "eval_sha256"])
def test_a_comparison_of_other_files_blocks(report: str, name: str) -> None:
    reports = good_reports()
    reports[report][name] = sha256_hex("another file")
    assert [check.id for check in decide_on(reports, "research").blocking] == [f"evidence_{report}"]


@pytest.mark.parametrize("data", [None, [], "text", {}, {"subject": SUBJECT}])
def test_evidence_without_its_fields_blocks(data: Any) -> None:
    reports = good_reports()
    reports["eval"] = data
    assert [check.id for check in decide_on(reports, "research").blocking] == ["evidence_eval"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high"])
def test_numbers_that_are_no_numbers_block(value: Any) -> None:
    reports = good_reports()
    reports["base"]["val_bpb"] = value
    assert [check.id for check in decide_on(reports, "research").blocking] == ["evidence_base"]


@pytest.mark.parametrize(
    ("path", "check_id"),
    [
        (("eval", "groups", "math"), "skill_release_eval_math"),
        (("sft_fit", "groups", "choice"), "skill_release_sft_choice"),
        (("eval", "prompt_echo"), "prompt_echo"),
        (("eval", "unsafe_refusal"), "refusal"),
    ],
)
def test_too_few_examples_block_whatever_the_rate(path: tuple[str, ...], check_id: str) -> None:
    reports = good_reports()
    put(*path, value=score(9, 9) if "groups" in path else score(0, 9))(reports)
    report = decide_on(reports, "skill_release")
    assert [check.id for check in report.blocking] == [check_id]
    assert report.blocking[0].measured is None


def test_scores_of_trained_rows_are_no_evidence_about_held_out_ones() -> None:
    reports = good_reports()
    reports["sft_fit_heldout"] = copy.deepcopy(reports["sft_fit"])
    report = decide_on(reports, "first_release")
    assert [check.id for check in report.blocking] == ["evidence_sft_fit_heldout"]


def test_too_few_examples_of_a_warning_rule_warn() -> None:
    reports = good_reports()
    put("eval", "unsupported_claims", value=score(0, 9))(reports)
    report = decide_on(reports, "skill_release")
    assert [check.id for check in report.warnings] == ["unsupported_claims"]


def test_choice_accuracy_over_a_handful_of_items_is_no_evidence() -> None:
    reports = good_reports()
    put("eval", "choice", value=score(9, 9))(reports)  # whatever the size of the skill group "choice"
    put("eval", "choice_accuracy_adjusted", value=1.0)(reports)
    report = decide_on(reports, "first_release")
    assert [check.id for check in report.blocking] == ["choice_adjusted_accuracy"]


def test_messages_give_numbers_that_people_read() -> None:
    reports = good_reports()
    put("eval", "choice", value=score(20, 100))(reports)
    put("eval", "choice_accuracy_adjusted", value=-0.05 / 0.75)(reports)
    messages = {check.id: check.message for check in decide_on(reports, "first_release").checks}
    assert messages["choice_adjusted_accuracy"].startswith("-0.067 choice accuracy")
    assert messages["base_val_tokens"].startswith("50,000 ")


def test_memorization_that_was_not_measured_warns() -> None:
    reports = good_reports()
    reports["base"] |= {"canary_count": 0, "exposure_bits": None, "control_exposure_bits": None}
    report = decide_on(reports, "research")
    assert [check.id for check in report.warnings] == ["memorization_canary"]


def test_too_few_spans_are_no_evidence_of_extraction() -> None:
    reports = good_reports()
    put("base", "extractable_heldout", value=score(0, 9))(reports)
    assert [check.id for check in decide_on(reports, "first_release").warnings] == [
        "memorization_above_floor"
    ]
    put("base", "extractable", value=score(0, 9))(reports)
    blocking = decide_on(reports, "first_release").blocking
    assert [check.id for check in blocking] == ["memorization_extractable"]


@pytest.mark.parametrize(
    "changes",
    [
        {"exposure_bits": None},
        {"canary_count": 0},
        {"canary_hits": 3},
        {"exposure_bits": -1.0},
    ],
)
def test_canary_figures_that_contradict_each_other_block(changes: dict[str, Any]) -> None:
    reports = good_reports()
    reports["base"] |= changes
    assert [check.id for check in decide_on(reports, "research").blocking] == ["evidence_base"]


@pytest.mark.parametrize(
    "name", ["exposure_bits", "control_exposure_bits", "extractable", "extractable_heldout"]
)
def test_a_base_report_without_memorization_blocks(name: str) -> None:
    reports = good_reports()
    del reports["base"][name]
    assert [check.id for check in decide_on(reports, "research").blocking] == ["evidence_base"]


def test_a_rate_that_does_not_follow_from_its_counts_blocks() -> None:
    reports = good_reports()
    reports["eval"]["non_choice"]["pass_rate"] = 1.0
    assert [check.id for check in decide_on(reports, "research").blocking] == ["evidence_eval"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("base", "num_nonfinite_steps"), -1),
        (("base", "canary_count"), -1),
        (("base", "canary_hits"), -1),
        (("base", "val_tokens"), "50000"),
        (("base", "val_tokens"), True),
        (("base", "val_tokens"), 10**400),
        (("base", "unigram_bpb"), 1e-308),
        (("base", "split_mode"), "none"),
        (("honesty", "exact_prompt_leaks"), -1),
        (("sft", "num_nonfinite_steps"), -1),
        (("eval", "choice_accuracy_adjusted"), 1.0),
        (("eval", "choice"), score(34, 100)),
    ],
)
def test_counts_that_no_run_can_have_measured_block(path: tuple[str, str], value: Any) -> None:
    reports = good_reports()
    put(*path, value=value)(reports)
    assert [check.id for check in decide_on(reports, "research").blocking] == [f"evidence_{path[0]}"]


def test_a_missing_skill_group_blocks() -> None:
    reports = good_reports()
    del reports["eval"]["groups"]["spelling"]
    report = decide_on(reports, "skill_release")
    assert [check.id for check in report.blocking] == ["skill_release_eval_spelling"]


def test_no_evidence_at_all_is_blocked() -> None:
    assert decide_on({}, "research").verdict is Verdict.BLOCKED


def test_a_policy_without_rules_approves_nothing() -> None:
    empty = GatePolicy(name="empty", required_evidence=())
    assert decide(empty, {}, subject=SUBJECT, data=DATA).verdict is Verdict.BLOCKED


def test_the_report_names_the_files_it_rests_on() -> None:
    report = decide_on(good_reports(), "research")
    assert {ref.name: ref.sha256 for ref in report.evidence} == {
        name: sha256_hex(name) for name in [*EVIDENCE_MODELS, "external"]
    }
    assert (report.subject, report.policy_digest) == (SUBJECT, policy_named("research").digest)


def test_a_changed_threshold_changes_the_policy_digest() -> None:
    policy = policy_named("first_release")
    assert policy.model_copy(update={"min_sft_fit": 0.71}).digest != policy.digest


def test_unknown_profiles_are_an_error() -> None:
    with pytest.raises(ValueError, match="unknown gate profile 'strict'"):
        policy_named("strict")
