"""The files under examples/ are what their names say."""

from pathlib import Path

import pytest
from picochat_client.specs import located_files, read_spec
from picochat_contract.spec import parse_mapping
from picochat_trainer.tuning.rows import read_chat, read_eval

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_spec_is_valid_and_its_files_are_there(path: Path) -> None:
    assert parse_mapping(located_files(read_spec(path))).name == path.stem


def test_rows_of_the_tiny_example_are_valid_and_apart() -> None:
    chat, items = read_chat(EXAMPLES / "tiny_chat.jsonl"), read_eval(EXAMPLES / "tiny_eval.jsonl")
    assert not {row.user for row in chat} & {item.user for item in items}
    assert any(not item.answerable for item in items)
