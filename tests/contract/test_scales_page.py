"""docs/scales.md says what the presets are."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_in_step_with_the_presets() -> None:
    printed = subprocess.run(
        [sys.executable, "tools/scales_page.py"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert printed == (ROOT / "docs/scales.md").read_text(encoding="utf-8"), (
        "run: python tools/scales_page.py > docs/scales.md"
    )
