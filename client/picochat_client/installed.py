"""How a user types one of our programs: by name where PATH finds it, else by its path in this environment."""

import shutil
import sys
from pathlib import Path


def typed(name: str) -> str:
    """`picochat`, or `.venv/bin/picochat` where the environment is not activated."""
    here = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not here.exists() or (found is not None and Path(found).resolve() == here.resolve()):
        return name
    try:
        return str(here.relative_to(Path.cwd()))
    except ValueError:
        return str(here)
