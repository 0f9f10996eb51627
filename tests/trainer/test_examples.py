"""The files under examples/ are what their names say."""

from pathlib import Path

import pytest
from picochat_client.program import main
from picochat_client.specs import located_files, read_spec
from picochat_contract.exit_codes import ClientExit
from picochat_contract.spec import parse_mapping
from picochat_trainer import local_run
from picochat_trainer.tuning.rows import read_chat, read_eval
from support.in_process import run_stage_here

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_spec_is_valid_and_its_files_are_there(path: Path) -> None:
    assert parse_mapping(located_files(read_spec(path))).name == path.stem


def test_rows_of_the_tiny_example_are_valid_and_apart() -> None:
    chat, items = read_chat(EXAMPLES / "tiny_chat.jsonl"), read_eval(EXAMPLES / "tiny_eval.jsonl")
    assert not {row.user for row in chat} & {item.user for item in items}
    assert any(not item.answerable for item in items)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_preflight_lets_the_spec_through(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_run, "run_stage", run_stage_here)
    call = ["run", "tiny", "--out-dir", str(tmp_path), "--spec", str(path), "--preflight-only"]
    assert main(call) == ClientExit.OK
    assert "0 block" in capsys.readouterr().out
