"""What the base stage leaves behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.configs import BaseConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.evidence import BaseEvidence
from picochat_contract.layout import Kind
from picochat_contract.manifest import Manifest, StageJob
from picochat_trainer.atomic import file_sha256
from picochat_trainer.context import StageContext
from picochat_trainer.stages import base
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.training.checkpoint import load_weights

MakeRun = Callable[[str], Path]
MakeConfig = Callable[..., BaseConfig]


@pytest.fixture
def report(undisturbed_run: Path) -> dict[str, Any]:
    return dict(json.loads((undisturbed_run / "base/train_report.json").read_text()))


def context(run_dir: Path) -> StageContext:
    return StageContext(run_dir, StageJob(stage="base", config={}))


def test_the_report_is_evidence_about_the_best_checkpoint(
    undisturbed_run: Path, report: dict[str, Any]
) -> None:
    evidence = BaseEvidence.model_validate(report)
    assert evidence.subject == file_sha256(undisturbed_run / "base/best_checkpoint/model.safetensors")
    assert evidence.tokens_seen == 60 * 4 * 64
    assert evidence.val_tokens > 1000
    assert 0 < evidence.val_bpb < 8 and 0 < evidence.unigram_bpb < 8
    assert (evidence.canary_count, evidence.canary_hits, evidence.num_nonfinite_steps) == (1, 0, 0)


def test_the_manifest_lists_every_output_with_its_digest(undisturbed_run: Path) -> None:
    text = (undisturbed_run / "stages/base/manifest.json").read_text()
    manifest = Manifest.model_validate_json(text)
    assert {output.path for output in manifest.outputs} == {
        "base/best_checkpoint/config.json",
        "base/best_checkpoint/metadata.json",
        "base/best_checkpoint/model.safetensors",
        "base/canary_probe.txt",
        "base/checkpoint/config.json",
        "base/checkpoint/metadata.json",
        "base/checkpoint/model.safetensors",
        "base/report.md",
        "base/sample.txt",
        "base/train_report.json",
    }
    for output in manifest.outputs:
        assert file_sha256(undisturbed_run / output.path) == output.sha256
    kinds = {output.path: output.kind for output in manifest.outputs}
    assert kinds["base/train_report.json"] is Kind.EVIDENCE
    assert kinds["base/best_checkpoint/config.json"] is Kind.CHECKPOINT


def test_nothing_but_the_outputs_is_left_in_its_folder(undisturbed_run: Path) -> None:
    names = {path.name for path in (undisturbed_run / "base").iterdir()}
    reports = {"canary_probe.txt", "report.md", "sample.txt", "train_report.json"}
    assert names == {"best_checkpoint", "checkpoint"} | reports


def test_the_checkpoint_config_says_how_to_build_the_model(undisturbed_run: Path) -> None:
    config, vocab_size, tensors = load_weights(undisturbed_run / "base/best_checkpoint")
    assert (config.n_layer, config.n_embd, config.sequence_len) == (1, 16, 64)
    assert vocab_size == Tokenizer.load(undisturbed_run / "tokenizer.json").vocab_size
    assert tensors["model.embed_tokens.weight"].shape == (vocab_size, 16)


def test_the_report_tells_how_the_text_was_split(undisturbed_run: Path, report: dict[str, Any]) -> None:
    data = report["dataset"]
    assert data["split_mode"] == "document" and data["split_note"] is None
    assert data["train_documents"] + data["val_documents"] == 16 + report["canary_count"]
    assert len(data["val_labels"]) == data["val_documents"]
    markdown = (undisturbed_run / "base/report.md").read_text()
    assert f"{report['val_bpb']:.3f} bits per byte" in markdown
    assert f"{report['unigram_bpb']:.3f}" in markdown


def test_the_losses_fall(report: dict[str, Any]) -> None:
    losses = [point["train_loss"] for point in report["losses"]]
    assert len(losses) == 60
    assert losses[-1] < losses[0] - 0.3


def test_a_corpus_without_enough_text_is_refused(new_run: MakeRun, base_config: MakeConfig) -> None:
    run_dir = new_run("small")
    (run_dir / "corpus.txt").write_text("tiny")
    (run_dir / "corpus_manifest.json").unlink()
    with pytest.raises(ContractError) as caught:
        base.run(context(run_dir), base_config())
    assert caught.value.code == Code.CORPUS_TOO_SMALL


def test_one_document_is_trained_with_a_warning(new_run: MakeRun, base_config: MakeConfig) -> None:
    run_dir = new_run("one")
    (run_dir / "corpus_manifest.json").unlink()
    metrics = base.run(context(run_dir), base_config(max_steps=2, canary_count=0))
    assert metrics["steps"] == 2
    report = json.loads((run_dir / "base/train_report.json").read_text())
    assert report["dataset"]["split_mode"] == "window"
    assert "same document" in report["dataset"]["split_note"]
    assert "was not probed" in (run_dir / "base/canary_probe.txt").read_text()


def test_a_context_too_short_for_the_canary_is_refused_before_training(
    new_run: MakeRun, base_config: MakeConfig
) -> None:
    run_dir = new_run("short")
    model = {"n_layer": 1, "n_head": 2, "n_embd": 16, "sequence_len": 8}
    with pytest.raises(ContractError, match="canary_count: 0"):
        base.run(context(run_dir), base_config(model=model))
    assert not (run_dir / "base/resume_checkpoint").exists()


def test_a_model_with_dropout_resumes_its_random_states(new_run: MakeRun, base_config: MakeConfig) -> None:
    """Dropout draws from torch's generator, so equal losses after a stop mean that its state came back."""
    model = {"n_layer": 1, "n_head": 2, "n_embd": 16, "sequence_len": 64, "dropout": 0.3}
    config = base_config(model=model, max_steps=12, checkpoint_every=6, max_minutes=60)
    whole, parts = new_run("whole"), new_run("parts")
    base.run(context(whole), config)
    stopped = context(parts)

    class StopAtSeven:
        def metric(self, step: int, **values: float) -> None:
            if step == 7:
                stopped.stopping = True

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: None

    stopped.events = StopAtSeven()  # type: ignore[assignment]
    with pytest.raises(BaseException) as caught:
        base.run(stopped, config)
    assert type(caught.value).__name__ == "Interrupted"
    base.run(context(parts), config)
    read = [json.loads((d / "base/train_report.json").read_text())["losses"] for d in (whole, parts)]
    assert read[0] == read[1]
