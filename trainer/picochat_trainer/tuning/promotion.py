"""Names generated rows in a dataset pack, so that the next run trains on them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import write_json

PackKey = Literal["chat", "eval", "preferences"]
LONG_NAMES: Final[dict[PackKey, str]] = {"chat": "chat_input", "eval": "eval_input"}


def promote(pack: Path, files: Mapping[PackKey, Path]) -> None:
    """Write the paths of `files` into the pack, relative to it; other keys stay as they are.

    Raise `file_unreadable` where the pack is no JSON object: comments of a YAML pack would be lost.
    """
    try:
        values = json.loads(pack.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"a JSON {type(values).__name__}")
    except (OSError, ValueError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"cannot promote into {pack}: expected a pack that is a JSON object ({error}); name the files in it by hand",
            param=str(pack),
        ) from error
    for key, path in files.items():
        values.pop(LONG_NAMES.get(key, key), None)
        values[key] = Path(os.path.relpath(path.absolute(), pack.absolute().parent)).as_posix()
    write_json(pack, values)
