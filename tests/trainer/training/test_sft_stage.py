"""What the SFT stage leaves behind, and how it resumes."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.configs import FitConfig, SftConfig
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.evidence import SftEvidence
from picochat_contract.manifest import StageJob
from picochat_contract.version import STAGE_CODE
from picochat_trainer.atomic import file_sha256
from picochat_trainer.context import Interrupted, StageContext
from picochat_trainer.model import GPT
from picochat_trainer.stages import fit, sft
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.training.chat_reader import ChatReader
from picochat_trainer.training.checkpoint import load_weights, open_checkpoint
from picochat_trainer.training.first_weights import build_model
from picochat_trainer.training.reader import StepBatch
from picochat_trainer.training.spike_watch import DIVERGED_STEPS
from support.jumps import Jump

CONFIG = {
    "max_steps": 20,
    "device_batch_size": 4,
    "warmup_steps": 2,
    "learning_rate": 3e-3,
    "eval_every": 5,
    "checkpoint_every": 5,
    "log_every": 1,
    "sample_tokens": 8,
    "compile": "off",
}


ROLES = ("user", "assistant", "tool", "assistant")


def chat_rows(count: int) -> str:
    rows = [
        {
            "user": f"Say {i % 8}.",
            "assistant": f"{i % 2}",
            "category": f"c{i % 2}",
            "group": f"g{i % 8}",
        }
        for i in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def context(run_dir: Path) -> StageContext:
    return StageContext(run_dir, StageJob(stage="sft", config={}))


@pytest.fixture
def make_run(undisturbed_run: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A run folder with a finished base stage and chat rows."""

    def make(name: str = "run") -> Path:
        run_dir = Path(shutil.copytree(undisturbed_run, tmp_path / name))
        (run_dir / "chat_benchmark.jsonl").write_text(chat_rows(40))
        return run_dir

    return make


def report_of(run_dir: Path) -> dict[str, Any]:
    return dict(json.loads((run_dir / "sft/sft_report.json").read_text()))


def test_the_report_is_evidence_about_the_best_weights(make_run: Callable[[str], Path]) -> None:
    run_dir = make_run("run")
    metrics = sft.run(context(run_dir), SftConfig(**CONFIG))
    report = report_of(run_dir)
    evidence = SftEvidence.model_validate(report)
    assert evidence.subject == file_sha256(run_dir / "sft/checkpoint/model.safetensors")
    assert evidence.base_subject == file_sha256(run_dir / "base/best_checkpoint/model.safetensors")
    assert metrics["val_loss"] == min(p["val_loss"] for p in report["losses"] if "val_loss" in p)
    assert open_checkpoint(run_dir / "sft/checkpoint").metadata.step == report["best_step"]
    assert load_weights(run_dir / "sft/checkpoint")[0].n_embd == 16


def test_it_names_the_base_weights_that_it_read(make_run: Callable[[str], Path]) -> None:
    """A damaged base is replaced by `.previous`, and the gate must see the digest of that."""
    run_dir = make_run("run")
    best = run_dir / "base/best_checkpoint"
    good = file_sha256(best / "model.safetensors")
    shutil.copytree(best, run_dir / "base/best_checkpoint.previous")
    content = bytearray((best / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (best / "model.safetensors").write_bytes(content)
    sft.run(context(run_dir), SftConfig(**CONFIG))
    assert report_of(run_dir)["base_subject"] == good


def test_the_split_is_told_by_line_and_keeps_groups_together(make_run: Callable[[str], Path]) -> None:
    run_dir = make_run("run")
    with (run_dir / "chat_benchmark.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"user": "x" * 200, "assistant": "long", "group": "g9"}) + "\n")
    sft.run(context(run_dir), SftConfig(**CONFIG))
    data = report_of(run_dir)["dataset"]
    assert data["skipped_long"] == [42]  # line 41 is empty
    assert sorted(data["train_lines"] + data["val_lines"]) == list(range(1, 41))
    train, val = ({(line - 1) % 8 for line in data[key]} for key in ("train_lines", "val_lines"))
    assert train.isdisjoint(val)
    assert data["split_method"] == "group"
    assert data["supervised_tokens"] == 2 * len(data["train_lines"])  # a digit and the end of the turn


@pytest.mark.parametrize(("train_on", "targets"), [("last", 2), ("all", 4)])
def test_conversations_are_learned_and_asked_again(
    make_run: Callable[[str], Path], train_on: str, targets: int
) -> None:
    run_dir = make_run("run")
    rows = [
        {"messages": [{"role": r, "content": str(i % n)} for r, n in zip(ROLES, (9, 7, 5, 2), strict=True)]}
        for i in range(40)
    ]
    (run_dir / "chat_benchmark.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft.run(context(run_dir), SftConfig.model_validate({**CONFIG, "max_steps": 2, "train_on": train_on}))
    data = report_of(run_dir)["dataset"]
    assert data["skipped_long"] == []
    assert data["supervised_tokens"] == targets * len(data["train_lines"])
    fit.run(StageContext(run_dir, StageJob(stage="fit", config={})), FitConfig(max_new_tokens=2))
    examples = json.loads((run_dir / "sft_fit/sft_fit_report.json").read_text())["examples"]
    assert [e["line"] for e in examples] == data["train_lines"]
    assert "prompt_too_long" not in examples[0]["failures"]


def test_it_learns_the_format(make_run: Callable[[str], Path]) -> None:
    run_dir = make_run("run")
    sft.run(context(run_dir), SftConfig(**{**CONFIG, "max_steps": 60, "learning_rate": 1e-2}))
    losses = [p["val_loss"] for p in report_of(run_dir)["losses"] if "val_loss" in p]
    assert losses[-1] < 0.6 * losses[0]
    assert (run_dir / "sft/sample.txt").read_text().startswith("user: What is Picochat?\nassistant: ")


def with_a_jump(monkeypatch: pytest.MonkeyPatch, bad_steps: range) -> None:
    """The next SFT stage has a loss that jumps in these steps, counted from 0."""
    jumps: list[Jump] = []
    steps = itertools.count()
    next_step = ChatReader.next_step

    def built(*args: Any, **options: Any) -> GPT:
        model = build_model(*args, **options)
        jumps.append(Jump(model, bad_steps))
        return model

    def given(reader: ChatReader) -> StepBatch:
        jumps[0](next(steps))
        return next_step(reader)

    monkeypatch.setattr(sft, "build_model", built)
    monkeypatch.setattr(ChatReader, "next_step", given)


def test_a_loss_that_jumps_is_told_and_reported(
    make_run: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run("run")
    with_a_jump(monkeypatch, range(22, 24))
    sft.run(context(run_dir), SftConfig(**{**CONFIG, "max_steps": 30}))
    assert report_of(run_dir)["loss_spikes"] == [23]
    assert "- Loss spikes: 1, at step 23; trained on." in (run_dir / "sft/report.md").read_text()
    events = (run_dir / "stages/sft/events.jsonl").read_text()
    assert events.count("is a spike") == 1 and "lower sft.learning_rate" in events


def test_a_training_that_diverges_is_ended(
    make_run: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_jump(monkeypatch, range(50, 199))
    with pytest.raises(ContractError, match=r"lower sft\.learning_rate") as caught:
        sft.run(context(make_run("run")), SftConfig(**{**CONFIG, "max_steps": 110}))
    assert (caught.value.code, caught.value.param) == (Code.INVALID_VALUE, "learning_rate")
    assert f"for {DIVERGED_STEPS} steps up to step" in str(caught.value)


def test_a_stopped_stage_goes_on_to_the_same_bytes(make_run: Callable[[str], Path]) -> None:
    whole, parts = make_run("whole"), make_run("parts")
    sft.run(context(whole), SftConfig(**CONFIG))
    stopped = context(parts)
    stopped.stopping = True
    with pytest.raises(Interrupted):
        sft.run(stopped, SftConfig(**CONFIG))
    for stop_at in (4, 11, 17):
        halfway = context(parts)
        write = halfway.events.metric

        def metric(
            step: int, halfway: StageContext = halfway, write: Any = write, stop_at: int = stop_at, **v: float
        ) -> None:
            write(step, **v)
            halfway.stopping = step >= stop_at

        halfway.events.metric = metric  # type: ignore[method-assign]
        with pytest.raises(Interrupted):
            sft.run(halfway, SftConfig(**CONFIG))
    sft.run(context(parts), SftConfig(**CONFIG))
    weights = [(d / "sft/checkpoint/model.safetensors").read_bytes() for d in (whole, parts)]
    assert weights[0] == weights[1]
    assert report_of(whole)["losses"] == report_of(parts)["losses"]


def test_other_chat_rows_are_refused_on_resume(make_run: Callable[[str], Path]) -> None:
    run_dir = make_run("run")
    stopped = context(run_dir)
    stopped.stopping = True
    with pytest.raises(Interrupted):
        sft.run(stopped, SftConfig(**CONFIG))
    (run_dir / "chat_benchmark.jsonl").write_text(chat_rows(41))
    with pytest.raises(ContractError, match="chat: the checkpoint has") as caught:
        sft.run(context(run_dir), SftConfig(**CONFIG))
    assert caught.value.code == Code.FINGERPRINT_MISMATCH


def test_a_checkpoint_of_other_code_is_refused_on_resume(
    make_run: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run("run")
    stopped = context(run_dir)
    stopped.stopping = True
    with pytest.raises(Interrupted):
        sft.run(stopped, SftConfig(**CONFIG))
    monkeypatch.setitem(STAGE_CODE, "sft", STAGE_CODE["sft"] + 1)
    with pytest.raises(ContractError, match="code: the checkpoint has"):
        sft.run(context(run_dir), SftConfig(**CONFIG))


def test_a_tokenizer_of_another_size_is_refused(make_run: Callable[[str], Path]) -> None:
    run_dir = make_run("run")
    tokenizer = train_tokenizer(TokenizerConfig(type="bpe", vocab_size=300), [chat_rows(40)])
    save_tokenizer(tokenizer, run_dir / "tokenizer.json", run_dir / "tokenizer_config.json")
    with pytest.raises(ContractError, match="that the base was trained with") as caught:
        sft.run(context(run_dir), SftConfig(**CONFIG))
    assert caught.value.code == Code.INVALID_SHAPE
