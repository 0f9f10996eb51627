"""`picochat data ...`: everything that makes corpora and rows, one module per group of commands. No torch."""

from types import ModuleType
from typing import Final

import typer

from picochat_trainer.commands import (
    data_build,
    data_honesty,
    data_import,
    data_packs,
    data_rows,
    data_security,
    data_skills,
    data_slices,
    data_starters,
)

GROUPS: Final[tuple[ModuleType, ...]] = (
    data_build,
    data_import,
    data_honesty,
    data_rows,
    data_starters,
    data_packs,
    data_slices,
    data_skills,
    data_security,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def data() -> None:
    """Make and look at corpora and rows."""


for group in GROUPS:
    app.registered_commands += group.app.registered_commands
