"""A dry run by the base stage's own process: what the estimate is made of is what the stage reported."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.manifest import StageJob
from picochat_contract.spec import parse_mapping
from picochat_contract.stages import StageName
from picochat_trainer.dry_run import dry_run_record
from picochat_trainer.sanity import sample_run
from support import forks

SPEC = parse_mapping(
    {
        "base": {
            "model": {"n_layer": 1, "n_head": 2, "n_embd": 32, "sequence_len": 64},
            "max_steps": 100,
            "device_batch_size": 4,
            "grad_accum_steps": 1,
            "eval_every": 4,
            "checkpoint_every": 50,
            "log_every": 1,
            "canary_count": 0,
            "sample_tokens": 0,
            "compile": "off",
            "precision": "float32",
        },
        "resources": {"device": "cpu", "num_threads": 1},
    }
)


def dry_run(run_dir: Path, num_steps: int) -> dict[str, Any]:
    """Train up to `num_steps`; the stage's report."""
    config = SPEC.base_config.model_copy(update={"stop_after_steps": num_steps})
    job = StageJob(stage=StageName.BASE, config=config.model_dump(mode="json"), resources=SPEC.resources)
    process = forks.start_stage(run_dir, job)
    assert process.wait(timeout=120) == 0, (run_dir / "stages/base/log.txt").read_text()[-2000:]
    found: dict[str, Any] = json.loads((run_dir / "base/train_report.json").read_text())
    return found


@pytest.mark.parametrize(
    ("stops", "num_validations"),
    [
        ((10,), 3),  # after 4, 8 and 10 steps
        ((8,), 2),  # the last one was due anyway
        ((6, 13), 3),  # of the second call alone: after 8, 12 and 13
    ],
)
def test_the_seconds_of_a_validation_are_those_that_the_stage_spent_on_each(
    tmp_path: Path, stops: tuple[int, ...], num_validations: int
) -> None:
    sample_run.prepare(tmp_path)
    reports = [dry_run(tmp_path, num_steps) for num_steps in stops]
    spent = reports[-1]["throughput"]["validate_seconds"]
    measured = dry_run_record(tmp_path, SPEC, price_per_hour=3.5, max_cost=None).measured
    assert spent > 0 and measured.validate_seconds == pytest.approx(spent / num_validations)
