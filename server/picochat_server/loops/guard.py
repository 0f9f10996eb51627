"""Only one server at a time runs a round: a Postgres advisory lock, or a lock in this process on SQLite.

The rounds are idempotent, so this saves work; correctness does not rest on it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

ROUND_LOCK = 7_460_002  # an arbitrary number that only these loops use
_in_process = threading.Lock()


@contextmanager
def round_lock(engine: Engine) -> Iterator[bool]:
    """Yield True if this caller may run a round, False if somebody else is at it."""
    if engine.dialect.name == "sqlite":
        got_it = _in_process.acquire(blocking=False)
        try:
            yield got_it
        finally:
            if got_it:
                _in_process.release()
        return
    with engine.connect() as connection:  # its own: a session lock belongs to one connection
        got_it = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": ROUND_LOCK}))
        connection.commit()
        try:
            yield got_it
        finally:
            if got_it:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ROUND_LOCK})
                connection.commit()
