"""The pages in the system's Chromium: no console error, no CSP violation, no horizontal scroll, also without JavaScript.

Screenshots go to $PICOCHAT_SCREENSHOTS, else to pytest's tmp_path.
"""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI
from picochat_contract import layout
from picochat_contract.preflight_judge import RULES
from picochat_server.db import transaction
from picochat_server.models import Run
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support import hostile_reports, seeded_datasets
from support import seeded_runs as seed
from support.visitors import Key

pytestmark = pytest.mark.browser
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = {"desktop": 1280, "phone": 390}
ATTACK = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
OPEN_DETAILS = """() => {
  for (const one of document.querySelectorAll("main details:not(.ask)")) one.open = true;
}"""

# Text whose contrast with its background is under 4.5 (WCAG AA). Backgrounds here are opaque, so the nearest counts.
LOW_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => [0, 1, 2].map((i) => c[i] / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const c = rgb(getComputedStyle(one).backgroundColor);
      if (c[3] === 255) return c;
    }
    return [255, 255, 255, 255];
  };
  const low = [];
  for (const one of document.querySelectorAll("body *")) {
    const hasText = [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!hasText || !one.checkVisibility() || one.matches(".skip, .hidden, .hidden *")) continue;
    const style = getComputedStyle(one);
    const a = light(rgb(one instanceof SVGElement ? style.fill : style.color)), b = light(ground(one));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${one.tagName}.${one.className.baseVal ?? one.className} ${ratio.toFixed(2)}`);
  }
  return low;
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        pytest.skip(
            f"NO BROWSER: none of {', '.join(CHROMIUMS)} is installed, the pages were not opened in one"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """A browser page that remembers everything the browser complained about."""

    page: Page
    site: str
    shots: Path
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        self.page.goto(self.site + path)

    def log_in(self, secret: str) -> None:
        self.open("/login")
        self.page.get_by_label("API key").fill(secret)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(self.site + "/")

    def shoot(self, name: str) -> None:
        self.page.screenshot(path=self.shots / f"{name}.png", full_page=True)

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        found: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return found


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("PICOCHAT_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def visit(
    chromium: Browser, site: str, shots: Path, width: int, scripts: bool = True, scheme: str = "dark"
) -> Visit:
    context = chromium.new_context(
        viewport={"width": width, "height": 844},
        java_script_enabled=scripts,
        color_scheme="light" if scheme == "light" else "dark",
        device_scale_factor=1,
    )
    context.set_default_timeout(10_000)
    made = Visit(context.new_page(), site, shots)
    # CSP violations arrive as console errors.
    made.page.on(
        "console", lambda message: made.complaints.append(message.text) if message.type == "error" else None
    )
    made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
    return made


@pytest.fixture
def runs(app: FastAPI, project_id: str) -> dict[str, str]:
    blocked = seed.finished(app, project_id, "demo", seed.blocked_files()).run_id
    return {
        "blocked": blocked,
        "approved": seed.finished(app, project_id, "release-candidate", seed.model_files()).run_id,
        "reusing": seed.reusing(app, project_id, "sft-again", blocked),
        "failed": seed.failed(app, project_id, "broken-corpus"),
        "queued": seed.queued(app, project_id, "next-" + "long" * 18),
        "running": seed.running(app, project_id, "nightly"),
        "stopped": seed.stopped_by_preflight(app, project_id, "leaky"),
    }


@pytest.fixture
def pages(app: FastAPI, project_id: str, key: Key, runs: dict[str, str]) -> dict[str, str]:
    """Paths of all pages, by name."""
    text = ATTACK + "\u202e" + "long" * 500
    reports = {
        layout.HONESTY: hostile_reports.honesty(text),
        layout.CORPUS_MANIFEST: hostile_reports.manifest(text),
        layout.MEMORIZATION_REPORT: hostile_reports.memorization(text),
    }
    hostile = seed.finished(app, project_id, "hostile", seed.blocked_files() | reports).run_id
    pushed = seeded_datasets.pushed(
        app,
        project_id,
        key.id,
        "field-notes",
        3,
        license="CC-BY-4.0",
        description="Notes of " + "rivers " * 20,
    )
    return {
        "runs": "/",
        "new-run": "/runs/new",
        **{name: f"/runs/{run}" for name, run in runs.items()},
        "preflight": f"/runs/{runs['stopped']}/preflight",
        "honesty-leaky": f"/runs/{runs['stopped']}/honesty",
        "honesty": f"/runs/{runs['blocked']}/honesty",
        "audit": f"/runs/{runs['blocked']}/honesty?part=audit",
        "memorization": f"/runs/{runs['blocked']}/honesty?part=memorization",
        "no-preflight": f"/runs/{runs['queued']}/preflight",
        "no-honesty": f"/runs/{runs['queued']}/honesty",
        "hostile": f"/runs/{hostile}",
        "hostile-honesty": f"/runs/{hostile}/honesty",
        "hostile-memorization": f"/runs/{hostile}/honesty?part=memorization",
        "datasets": "/datasets",
        "dataset": f"/datasets/{pushed.id}",
    }


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("device", WIDTHS)
def test_pages_fit_and_raise_no_complaint(
    chromium: Browser, site: str, shots: Path, pages: dict[str, str], key: Key, device: str, scheme: str
) -> None:
    one = visit(chromium, site, shots, WIDTHS[device], scheme=scheme)
    one.open("/login")
    one.shoot(f"login-{device}-{scheme}")
    one.log_in(key.secret)
    for name, path in pages.items():
        one.open(path)
        one.page.evaluate(OPEN_DETAILS)
        one.shoot(f"{name}-{device}-{scheme}")
        assert one.overflow() == 0, f"{name} is {one.overflow()} px wider than {device}"
        assert "owned" not in one.page.title()
    assert one.complaints == []
    one.page.context.close()


def test_text_has_enough_contrast(
    chromium: Browser, site: str, shots: Path, pages: dict[str, str], key: Key
) -> None:
    names = (
        "runs",
        "new-run",
        "blocked",
        "running",
        "stopped",
        "preflight",
        "honesty",
        "memorization",
        "datasets",
        "dataset",
    )
    for scheme in ("dark", "light"):
        one = visit(chromium, site, shots, 1280, scheme=scheme)
        one.log_in(key.secret)
        for name in names:
            one.open(pages[name])
            one.page.evaluate(OPEN_DETAILS)
            assert one.page.evaluate(LOW_CONTRAST) == []
        one.page.context.close()


def test_without_javascript_everything_can_be_read_and_done(
    chromium: Browser, site: str, shots: Path, runs: dict[str, str], key: Key, app: FastAPI
) -> None:
    one = visit(chromium, site, shots, 1280, scripts=False)
    one.log_in(key.secret)
    one.page.get_by_role("link", name="nightly").click()
    expect(one.page.locator("#chart-base-loss path.line")).to_have_count(4)  # two lines and their keys
    expect(one.page.locator("#log-lines")).to_contain_text("step 100: train loss")
    one.page.get_by_text("Cancel run").click()
    one.page.get_by_role("button", name="Cancel this run").click()
    expect(one.page.locator("#summary")).to_contain_text("cancelling")
    one.page.get_by_role("button", name="Log out").click()
    expect(one.page.get_by_label("API key")).to_be_visible()
    one.page.context.close()


def test_without_javascript_a_leak_can_be_followed_from_the_list_to_its_findings(
    chromium: Browser, site: str, shots: Path, runs: dict[str, str], key: Key
) -> None:
    one = visit(chromium, site, shots, 390, scripts=False)
    one.log_in(key.secret)
    one.page.get_by_role("link", name="leaky").click()
    one.page.get_by_role("link", name="honesty", exact=True).first.click()
    expect(one.page.locator("#check-honesty")).to_be_in_viewport()
    one.page.get_by_text(f"{len(RULES) - 1} checks pass").click()
    expect(one.page.locator("#check-disk_space")).to_be_visible()
    one.page.get_by_role("navigation", name="Parts of the run").get_by_role("link", name="Honesty").click()
    expect(one.page.locator("#findings")).to_contain_text("What is the capital of Freedonia?")
    one.open(f"/runs/{runs['blocked']}/honesty")
    one.page.get_by_role("link", name="Later findings").click()
    expect(one.page.locator("#findings")).to_contain_text("26 to 50 of 60 listed")
    one.page.context.close()


@pytest.mark.parametrize("device", WIDTHS)
def test_without_javascript_a_paid_run_is_confirmed_by_a_button(
    chromium: Browser, site: str, shots: Path, key: Key, device: str
) -> None:
    one = visit(chromium, site, shots, WIDTHS[device], scripts=False)
    one.log_in(key.secret)
    one.page.get_by_role("link", name="New run").click()
    one.page.get_by_label("Run spec").fill("name: paid\nscale: h200-1b-ddp8\n")
    one.page.get_by_role("button", name="Check and submit").click()
    expect(one.page.get_by_role("heading", level=1)).to_have_text("This run is paid for by the hour")
    expect(one.page.locator("dl.facts")).to_contain_text("GPU hours")
    one.shoot(f"confirm-run-{device}")
    assert one.overflow() == 0
    one.page.get_by_role("button", name="Start the paid run").click()
    expect(one.page.locator("#summary")).to_contain_text("confirmed by laptop")
    one.shoot(f"confirmed-run-{device}")
    assert one.overflow() == 0
    one.page.context.close()


def test_every_link_and_box_of_a_report_is_reached_by_keyboard(
    chromium: Browser, site: str, shots: Path, pages: dict[str, str], key: Key
) -> None:
    one = visit(chromium, site, shots, 390)
    one.log_in(key.secret)
    one.open(pages["preflight"])
    unreachable = one.page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter((one) => one.scrollWidth > one.clientWidth + 1
          && ["auto", "scroll"].includes(getComputedStyle(one).overflowX) && one.tabIndex < 0)
          .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert unreachable == []
    one.page.keyboard.press("Tab")
    assert one.page.evaluate("document.activeElement.textContent") == "Skip to content"
    one.page.context.close()


def test_a_live_page_follows_the_run_and_keeps_the_readers_place(
    chromium: Browser, site: str, shots: Path, runs: dict[str, str], key: Key, app: FastAPI
) -> None:
    one = visit(chromium, site, shots, 1280)
    one.log_in(key.secret)
    one.open(f"/runs/{runs['running']}")
    one.page.get_by_text("Numbers of every stage").click()
    one.page.locator("#cancel-ask summary").focus()
    one.page.evaluate("window.scrollTo(0, 300)")
    seed.log_event(app, runs["running"], "a line that came later")
    expect(one.page.locator("#log-lines")).to_contain_text("a line that came later")
    with one.page.expect_response(re.compile("/live")) as asked:
        pass
    assert asked.value.status == 204, "nothing new: nothing is sent"
    assert one.page.locator("#stage-numbers").get_attribute("open") is not None
    assert one.page.evaluate("document.activeElement.textContent") == "Cancel run"
    assert one.page.evaluate("window.scrollY") == 300
    assert one.complaints == []
    one.page.context.close()


def test_a_live_page_says_when_the_run_is_finished_and_stops_asking(
    chromium: Browser, site: str, shots: Path, runs: dict[str, str], key: Key, app: FastAPI
) -> None:
    one = visit(chromium, site, shots, 1280)
    one.log_in(key.secret)
    one.open(f"/runs/{runs['running']}")
    expect(one.page.locator("#live-note")).to_have_text("Live")
    with transaction(app.state.sessions) as session:
        session.get_one(Run, runs["running"]).state = "failed"
    seed.log_event(app, runs["running"], "the end")
    expect(one.page.locator("#live-note")).to_have_text("Finished")
    expect(one.page.locator("#summary .badges")).to_have_text(re.compile("failed"))
    asked: list[str] = []
    one.page.on("request", lambda request: asked.append(request.url))
    one.page.wait_for_timeout(2500)
    assert asked == []
    one.page.context.close()


def test_a_hostile_text_runs_nothing(
    chromium: Browser, site: str, shots: Path, runs: dict[str, str], key: Key, app: FastAPI
) -> None:
    with transaction(app.state.sessions) as session:
        session.get_one(Run, runs["running"]).name = ATTACK
    seed.log_event(app, runs["running"], ATTACK)
    one = visit(chromium, site, shots, 1280)
    one.log_in(key.secret)
    one.open(f"/runs/{runs['running']}")
    expect(one.page.get_by_role("heading", level=1)).to_have_text(ATTACK)
    seed.log_event(app, runs["running"], ATTACK)  # also by way of the script that swaps parts
    expect(one.page.locator("#log-lines")).to_contain_text(re.compile("onerror.*onerror", re.DOTALL))
    assert one.page.title() == f"{ATTACK} - picochat"
    assert one.complaints == []
    one.page.context.close()
