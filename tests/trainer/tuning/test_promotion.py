"""Naming generated rows in a pack."""

import json
from pathlib import Path

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tuning.promotion import promote


def test_paths_are_written_relative_to_the_pack(tmp_path: Path) -> None:
    pack = tmp_path / "packs" / "pack.json"
    pack.parent.mkdir()
    pack.write_text(json.dumps({"name": "x", "corpus": "c.txt", "chat_input": "old.jsonl"}))
    promote(pack, {"chat": tmp_path / "packs" / "rows" / "chat.jsonl", "eval": tmp_path / "eval.jsonl"})
    assert json.loads(pack.read_text()) == {
        "name": "x",
        "corpus": "c.txt",
        "chat": "rows/chat.jsonl",
        "eval": "../eval.jsonl",
    }


@pytest.mark.parametrize("text", ["corpus: c.txt\n", "[]"])
def test_a_pack_that_is_no_json_object_is_left_alone(tmp_path: Path, text: str) -> None:
    pack = tmp_path / "pack.yaml"
    pack.write_text(text)
    with pytest.raises(ContractError, match="by hand") as caught:
        promote(pack, {"chat": tmp_path / "chat.jsonl"})
    assert caught.value.code is Code.FILE_UNREADABLE
    assert pack.read_text() == text
