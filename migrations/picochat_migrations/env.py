"""Alembic's environment. The caller hands over an open connection and the metadata; see bootstrap.py.

SQLite: a batch rebuild of a parent table with `foreign_keys=ON` silently deletes all children that have
ON DELETE CASCADE. So the pragma is off while revisions run and `foreign_key_check` runs before the commit.
"""

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, DateTime
from sqlalchemy.types import TypeDecorator


def run(connection: Connection) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        _pragma_foreign_keys(connection, on=False)
    try:
        context.configure(
            connection=connection,
            target_metadata=context.config.attributes["metadata"],
            render_as_batch=True,
            render_item=_render_item,
            compare_type=True,
            transactional_ddl=True,  # SQLite can, but Alembic does not assume so
            transaction_per_migration=False,
        )
        with context.begin_transaction():
            context.run_migrations()
            if is_sqlite:
                _check_foreign_keys(connection)
    finally:
        if is_sqlite:
            _pragma_foreign_keys(connection, on=True)


def _pragma_foreign_keys(connection: Connection, *, on: bool) -> None:
    """On the driver's connection: inside a transaction the pragma does nothing, and SQLAlchemy begins one."""
    assert not connection.in_transaction(), "hand over a connection on which nothing has begun"
    driver: Any = connection.connection.dbapi_connection
    driver.execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")


def _check_foreign_keys(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise RuntimeError(f"the migration left rows without their parent, nothing was changed: {broken[:5]}")


def _render_item(kind: str, item: Any, autogen_context: Any) -> str | Literal[False]:
    """Write our own types as the plain ones that they store, so that a revision never imports the server."""
    if kind == "type" and isinstance(item, TypeDecorator) and isinstance(item.impl, DateTime):
        return "sa.DateTime(timezone=True)"
    return False


run(context.config.attributes["connection"])
