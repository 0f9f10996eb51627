"""preflight.md: what to do stands first, waivers are named, nothing is lost."""

from picochat_contract.preflight import PreflightRecord
from picochat_contract.preflight_judge import judge, record
from picochat_trainer.preflight.markdown import preflight_markdown
from support.preflight import fitting_facts, preflight_config


def report(allow_leaks: bool = False, **facts: object) -> PreflightRecord:
    config = preflight_config({"scale": "small", "preflight": {"allow_leaky_eval": allow_leaks}})
    measured = fitting_facts(config, dict(facts))
    return record(judge(config, measured), measured)


def test_a_ready_plan_has_nothing_to_do() -> None:
    page = preflight_markdown(report())
    assert "Status: **ready** - every check passes." in page
    assert "## To do" not in page and "## Plan" in page


def test_every_check_is_listed_those_that_block_first() -> None:
    found = report(honesty={"exact_prompt_leaks": 2}, corpus={"readiness": "caution"})
    page = preflight_markdown(found)
    assert all(f"| {check.id} | " in page for check in found.checks)
    assert page.index("| honesty | block |") < page.index("| corpus_readiness | warn |")
    assert page.index("| corpus_readiness | warn |") < page.index("| base_lr | pass |")
    assert "- **honesty** (block): 2 eval prompts among SFT rows" in page


def test_a_waiver_is_named_with_its_option() -> None:
    page = preflight_markdown(report(allow_leaks=True, honesty={"exact_prompt_leaks": 2}))
    assert "- **honesty** (block (waived))" in page
    assert "waived by preflight.allow_leaky_eval (--allow-leaky-eval)" in page


def test_it_says_what_was_measured_and_what_was_not() -> None:
    found = report()
    page = preflight_markdown(found)
    assert f"corpus_manifest.json: `{found.facts.corpus.sha256}`" in page
    assert "The cost in money is not known" in page
    assert "This is a long run" in page
