"""How a preflight report looks in a terminal."""

from picochat_client.preflight_tables import preflight_line, preflight_table
from picochat_contract.preflight import PreflightReport
from picochat_contract.preflight_judge import RULES, judge
from rich.console import Console
from support.preflight import fitting_facts, preflight_config


def report(allow_leaky_eval: bool = False, **facts: object) -> PreflightReport:
    config = preflight_config({"scale": "small", "preflight": {"allow_leaky_eval": allow_leaky_eval}})
    return judge(config, fitting_facts(config, dict(facts)))


def shown(found: PreflightReport) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(preflight_table(found))
        console.print(preflight_line(found))
    return capture.get()


def test_only_what_does_not_pass_is_listed_the_worst_first() -> None:
    text = shown(report(honesty={"exact_prompt_leaks": 1}, corpus={"readiness": "caution"}))
    assert text.index("honesty") < text.index("corpus_readiness")
    assert "base_lr" not in text
    assert f"preflight blocked  ({len(RULES)} checks, 1 block, 1 warn)" in text


def test_a_waived_block_names_its_setting() -> None:
    text = shown(report(True, honesty={"exact_prompt_leaks": 1}))
    assert "waived by" in text and "preflight.allow_leaky_eval" in text
    assert f"preflight warn  ({len(RULES)} checks, 0 block, 0 warn, 1 waived)" in text


def test_no_cell_is_cut() -> None:
    text = shown(report(corpus={"duplicate_line_rate": 0.2}))
    assert "".join(text.split()).count("dataset.cleaning.boilerplate_documents") == 1


def test_text_from_outside_steers_no_terminal() -> None:
    text = shown(report(corpus={"readiness": "caution", "readiness_summary": "\x1b[31mred"}))
    assert "\x1b" not in text
