"""A leak between eval and SFT rows stops a run before training: client, server and worker are real, stages are not."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.stack import Stack

pytestmark = pytest.mark.e2e

FACTORY = Path(__file__).parents[1] / "support" / "fake_factory.py"
ROWS = ["who are you", "what is two and two", "spell cat"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    built = Stack(tmp_path_factory.mktemp("leaky"))
    try:
        built.start_server()
        command = json.dumps([sys.executable, str(FACTORY)])
        built.start_worker(environment={"PICOCHAT_WORKER_STAGE_COMMAND": command})
        yield built
    finally:
        built.stop()


def write_pack(folder: Path, evaluation: list[str]) -> str:
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "a.txt").write_text("a corpus")
    (folder / "chat.jsonl").write_text("\n".join(ROWS))
    (folder / "eval.jsonl").write_text("\n".join(evaluation))
    pack = folder / "pack.json"
    pack.write_text(json.dumps({"corpus": "docs", "chat": "chat.jsonl", "eval": "eval.jsonl"}))
    return str(pack)


def test_a_leaky_dataset_is_found_and_its_run_blocked(stack: Stack) -> None:
    pushed = stack.client(
        "data", "push", write_pack(stack.home / "leaky", ["new", ROWS[1]]), "--name", "quiz"
    )
    assert pushed.stdout == "quiz@1\n", pushed.stderr

    checked = stack.client("data", "honesty", "quiz", "--set", "scale=smoke")
    assert checked.returncode == 2, f"{checked.stdout}{checked.stderr}{stack.logs()}"
    assert "eval:2" in checked.stdout
    assert "sft:2" in checked.stdout
    assert "remove the leaked rows" in " ".join(checked.stdout.split())

    ref = {"type": "dataset", "name": "quiz"}
    spec = stack.home / "spec.json"
    spec.write_text(json.dumps({"scale": "smoke", "dataset": {"sources": [ref], "chat": ref, "eval": ref}}))
    submitted = stack.client("submit", str(spec), "--wait", "--json")
    assert submitted.returncode == 2
    answer = json.loads(submitted.stdout)
    found = {stage["name"]: stage["state"] for stage in answer["run"]["stages"]}
    assert [found.pop(name) for name in ("dataset", "honesty", "preflight")] == ["cached"] * 3
    assert set(found.values()) == {"skipped"}
    assert (answer["run"]["state"], answer["run"]["verdict"]) == ("blocked", "blocked")
    blocking = [c["id"] for c in answer["preflight"]["report"]["checks"] if c["status"] == "block"]
    assert blocking == ["honesty"]


def test_a_clean_version_passes_and_is_previewed(stack: Stack) -> None:
    pack = write_pack(stack.home / "clean", ["new", "newer"])
    assert stack.client("data", "push", pack, "--name", "clean").stdout == "clean@1\n"
    checked = stack.client("data", "honesty", "clean", "--set", "scale=smoke", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["preflight"]["report"]["status"] in ("ready", "warn")
    assert stack.client("data", "preview", "clean@1").stdout == "# Corpus\n1 files\n\n"
