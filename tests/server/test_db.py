"""The engine: what this project relies on of both databases."""

import pytest
from fastapi import FastAPI
from picochat_server.db import transaction
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError


def test_errors_do_not_quote_the_parameters_of_a_statement(app: FastAPI) -> None:
    """They go to the log, and a parameter may be a lease token."""
    with pytest.raises(DBAPIError) as raised, transaction(app.state.sessions) as session:
        session.execute(text("SELECT nothing FROM nowhere WHERE token = :token"), {"token": "very secret"})
    assert "very secret" not in str(raised.value)
