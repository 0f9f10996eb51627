"""`picochat run tiny --dry-run-steps N`: real steps of base training in the run folder, then what the rest would take.

The folder is an ordinary one: without the option the same command reuses its data and tokenizer and goes on from the
checkpoint of step N.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picochat_client.terminal import printable
from picochat_contract import layout
from picochat_contract.errors import Code, SpecError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.spec import RunSpec, expand
from picochat_contract.stages import STAGES, StageName
from rich.console import Console
from rich.table import Table
from rich.text import Text

from picochat_trainer.atomic import write_text
from picochat_trainer.commands.shown_run import run_shown
from picochat_trainer.dry_run import JSON, MARKDOWN, DryRunRecord, dry_run_record
from picochat_trainer.dry_run_text import markdown, table
from picochat_trainer.launch import read_manifest
from picochat_trainer.paid_launch import confirmed_spec


@dataclass(frozen=True, kw_only=True)
class Prices:
    per_hour: float | None
    """Of one GPU; the currency is the user's."""
    max_cost: float | None

    def __post_init__(self) -> None:
        for param, value in (("price_per_hour", self.per_hour), ("max_cost", self.max_cost)):
            if value is not None and not math.isfinite(value):
                option = f"--{param.replace('_', '-')}"
                raise SpecError(
                    Code.INVALID_VALUE, f"{option} {value:g}: expected a finite number", param=param
                )

    def refuse_without_dry_run(self) -> None:
        if self.per_hour is not None or self.max_cost is not None:
            raise SpecError(
                Code.INVALID_VALUE,
                "--price-per-hour and --max-cost are for a dry run; give --dry-run-steps, too, such as 100",
                param="price_per_hour",
            )


def dry_run(
    spec: RunSpec,
    out_dir: Path,
    steps: int,
    prices: Prices,
    *,
    paths: Mapping[str, str],
    confirmed: bool = False,
) -> int:
    """Run up to base, stop there after `steps`, write and print the estimate; exit 2 where it exceeds a limit.

    `paths` are those of `StageJob.paths`.
    """
    if prices.max_cost is not None and prices.per_hour is None:
        raise SpecError(
            Code.INVALID_VALUE,
            "--max-cost needs --price-per-hour: no price of a device is known here",
            param="max_cost",
        )
    stages = stages_of_dry_run(spec, steps)
    _refuse_finished(out_dir)
    stopping = spec.base.model_copy(update={"stop_after_steps": steps})
    stopped = spec.model_copy(update={"base": stopping, "until": StageName.BASE})
    confirmed_spec(stopped, out_dir, confirmed=confirmed, say=say)  # a dry run may be long, too
    code = run_shown(spec, out_dir, stages, paths=paths)
    if code != ClientExit.OK:
        return code
    record = dry_run_record(out_dir, spec, price_per_hour=prices.per_hour, max_cost=prices.max_cost)
    write_text(out_dir / JSON, record.model_dump_json(indent=2) + "\n")
    write_text(out_dir / MARKDOWN, markdown(record))
    _print(record, out_dir)
    return ClientExit.GATE_BLOCKED if record.over else ClientExit.OK


def stages_of_dry_run(spec: RunSpec, steps: int) -> dict[StageName, Any]:
    """The stages that base needs, as the full run has them, and a base that stops after `steps`."""
    stages = expand(spec)
    if StageName.BASE not in stages:
        raise SpecError(
            Code.INVALID_VALUE,
            f"until is {spec.until}, which comes before base; leave it out with --dry-run-steps",
            param="until",
        )
    if steps >= spec.base.max_steps:
        raise SpecError(
            Code.INVALID_VALUE,
            f"--dry-run-steps {steps} is no less than base.max_steps {spec.base.max_steps}: that is the whole training, not "
            "a part of it; give fewer",
            param="dry_run_steps",
        )
    wanted = {StageName.BASE, StageName.HONESTY, StageName.PREFLIGHT, *STAGES[StageName.BASE].needs}
    found = {name: config for name, config in stages.items() if name in wanted}
    found[StageName.BASE] = spec.base_config.model_copy(update={"stop_after_steps": steps})
    return found


def _refuse_finished(out_dir: Path) -> None:
    """A finished training has no checkpoint to go on from: a dry run would put a new one of a few steps in its place."""
    if read_manifest(out_dir / "stages" / StageName.BASE.value) is None:
        return
    report = json.loads((out_dir / layout.BASE_REPORT).read_text(encoding="utf-8"))
    if report.get("stop_reason") != "stop_after_steps":
        raise SpecError(
            Code.INVALID_VALUE,
            f"base training in {out_dir} is finished, and a dry run would replace it; give another --out-dir",
            param="out_dir",
        )


def say(line: str) -> None:
    """To a person; stdout has the answer alone."""
    print(printable(line), file=sys.stderr)


def _print(record: DryRunRecord, out_dir: Path) -> None:
    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column()
    shown.add_column()
    for name, value in table(record):
        shown.add_row(name, Text(printable(value)))
    console = Console()
    console.print()
    console.print(shown)
    for words in record.over:
        console.print(Text(f"over the limit: {words}"), soft_wrap=True)
    console.print(Text(str(out_dir / MARKDOWN)), soft_wrap=True)
