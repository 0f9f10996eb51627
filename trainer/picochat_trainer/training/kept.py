"""Weights of every `keep_every` steps: `base/kept/step-000500`, outputs of the stage beside the last and the best.

They are listed in the manifest and so reach the server once, at the end of the stage, where files of equal content are
one; they are not part of resume points, so a training that goes on from one on another machine has only those that it
writes from there on.
"""

import re
import shutil
from typing import Final

from picochat_contract import layout

from picochat_trainer.context import StageContext

KEPT_KIND: Final = "kept"
_STEP: Final = re.compile(r"step-(\d{6,})")


def kept_folder(best: str) -> str:
    """Run-folder name of the folder of kept weights of the stage whose best weights are in `best`."""
    return f"{best.rpartition('/')[0]}/{layout.KEPT}"


def kept_name(best: str, step: int) -> str:
    return f"{kept_folder(best)}/step-{step:06d}"


def take_up_kept(context: StageContext, best: str, step: int) -> None:
    """Register what was kept up to `step`, and remove the rest: it is of another training, or torn, or comes again."""
    folder = context.path(kept_folder(best))
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        found = _STEP.fullmatch(entry.name)
        if found and int(found[1]) <= step:
            context.output(f"{kept_folder(best)}/{entry.name}")
        else:
            shutil.rmtree(entry, ignore_errors=True)
