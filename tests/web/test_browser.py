"""The pages in the system's Chromium: no console error, no CSP violation, no horizontal scroll, also without JavaScript.

Screenshots go to $PICOCHAT_SCREENSHOTS, else to pytest's tmp_path.
"""

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support import seeded_runs as seed

from picochat_server.db import transaction
from picochat_server.models import Run

pytestmark = pytest.mark.browser
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = {"desktop": 1280, "phone": 390}


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
    }


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("device", WIDTHS)
def test_pages_fit_and_raise_no_complaint(
    chromium: Browser, site: str, shots: Path, runs: dict[str, str], key: "Key", device: str, scheme: str
) -> None:
    one = visit(chromium, site, shots, WIDTHS[device], scheme=scheme)
    one.open("/login")
    one.shoot(f"login-{device}-{scheme}")
    one.log_in(key.secret)
    for name, path in {"runs": "/", **{name: f"/runs/{run}" for name, run in runs.items()}}.items():
        one.open(path)
        one.shoot(f"{name}-{device}-{scheme}")
        assert one.overflow() == 0, f"{name} is {one.overflow()} px wider than {device}"
    assert one.complaints == []
    one.page.context.close()
