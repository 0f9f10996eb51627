"""The recall benchmark, scaled down: planted items are found in every place, and a clean text gives no alarm."""

import importlib
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[4] / "bench"


def test_planted_items_are_found_and_clean_text_gives_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    recall = importlib.import_module("contamination_recall").measure_recall(
        num_items=70, clean_bytes=400_000, seed=3
    )
    for (name, place), cell in recall.cells.items():
        assert cell.recall >= (0.8 if name == "edited" else 0.95), (name, place, cell.missed)
    assert recall.num_not_searchable == 1
    alarms = {finding.item for findings in recall.alarms.values() for finding in findings}
    assert len(alarms) < 0.01 * recall.num_items
