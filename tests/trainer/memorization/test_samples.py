import json
from pathlib import Path

from picochat_trainer.inference.engine import Engine
from picochat_trainer.memorization.samples import NUM_SAMPLES, write_samples


def test_samples_differ_among_each_other_and_follow_from_the_seed(untrained: Engine, tmp_path: Path) -> None:
    num_tokens = write_samples(untrained, tmp_path / "first.jsonl", 1)
    write_samples(untrained, tmp_path / "again.jsonl", 1)
    write_samples(untrained, tmp_path / "other.jsonl", 2)
    first, again, other = (
        (tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("first", "again", "other")
    )
    texts = [json.loads(line)["text"] for line in first]
    assert len(texts) == NUM_SAMPLES and len(set(texts)) > NUM_SAMPLES // 2
    assert first == again and not set(first) & set(other)
    assert NUM_SAMPLES < num_tokens <= NUM_SAMPLES * (untrained.context - 1)


def test_the_largest_seed_is_as_good_as_any(untrained: Engine, tmp_path: Path) -> None:
    write_samples(untrained, tmp_path / "samples.jsonl", 2**63 - 1)
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == NUM_SAMPLES
