"""docs/preflight.md says what the rules say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_in_step_with_the_rules() -> None:
    printed = subprocess.run(
        [sys.executable, "tools/preflight_page.py"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert printed == (ROOT / "docs/preflight.md").read_text(encoding="utf-8"), (
        "run: python tools/preflight_page.py > docs/preflight.md"
    )
