"""Errors on their way between processes."""

import pickle

import pytest
from picochat_contract.errors import Code, ContractError, SpecError


@pytest.mark.parametrize("kind", [ContractError, SpecError])
def test_pickled_error_keeps_code_message_and_param(kind: type[ContractError]) -> None:
    error = pickle.loads(pickle.dumps(kind(Code.BAD_ROW, "line 3 is no row", param="a.jsonl")))
    assert type(error) is kind
    assert (error.code, error.message, error.param, str(error)) == (
        Code.BAD_ROW,
        "line 3 is no row",
        "a.jsonl",
        "line 3 is no row",
    )
