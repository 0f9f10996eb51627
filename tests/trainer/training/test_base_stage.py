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
from picochat_trainer.context import Interrupted, StageContext
from picochat_trainer.stages import base
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.checkpoint import load_weights

MakeRun = Callable[[str], Path]
MakeConfig = Callable[..., BaseConfig]
MakeTokens = Callable[[Path, list[str]], TokenStore]


class _StopAt:
    """Events that ask for a stop at a step."""

    def __init__(self, context: StageContext, step: int) -> None:
        self._context, self._step = context, step

    def metric(self, step: int, **values: float) -> None:
        if step == self._step:
            self._context.stopping = True

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


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
    assert report["loss_spikes"] == []
    assert "- Loss spikes: none." in (undisturbed_run / "base/report.md").read_text()


def test_the_report_says_on_how_much_text_the_best_checkpoint_was_chosen(
    new_run: MakeRun, base_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = new_run("chosen")
    monkeypatch.setattr(base, "tokens_in_training", lambda config, step_tokens: 256)
    base.run(context(run_dir), base_config(max_steps=2))
    found = json.loads((run_dir / "base/train_report.json").read_text())
    assert 0 < found["val_tokens_in_training"] <= 256 < found["val_tokens"]
    told = f"chosen on {found['val_tokens_in_training']} tokens of the same text"
    assert told in (run_dir / "base/report.md").read_text()


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
        "base/curves.csv",
        "base/curves.png",
        "base/holdout.json",
        "base/memorization_report.json",
        "base/report.md",
        "base/sample.txt",
        "base/samples.jsonl",
        "base/train_report.json",
    }
    for output in manifest.outputs:
        assert file_sha256(undisturbed_run / output.path) == output.sha256
    kinds = {output.path: output.kind for output in manifest.outputs}
    assert kinds["base/train_report.json"] is Kind.EVIDENCE
    assert kinds["base/memorization_report.json"] is Kind.REPORT
    assert kinds["base/samples.jsonl"] is Kind.SAMPLE
    assert kinds["base/best_checkpoint/config.json"] is Kind.CHECKPOINT


def test_nothing_but_the_outputs_is_left_in_its_folder(undisturbed_run: Path) -> None:
    names = {path.name for path in (undisturbed_run / "base").iterdir()}
    reports = {"holdout.json", "memorization_report.json", "report.md", "train_report.json"}
    reports |= {"curves.csv", "curves.png"}
    texts = {"canary_probe.txt", "sample.txt", "samples.jsonl"}
    assert names == {"best_checkpoint", "checkpoint"} | reports | texts


def test_the_checkpoint_config_says_how_to_build_the_model(undisturbed_run: Path) -> None:
    config, vocab_size, tensors = load_weights(undisturbed_run / "base/best_checkpoint")
    assert (config.n_layer, config.n_embd, config.sequence_len) == (1, 16, 64)
    assert vocab_size == Tokenizer.load(undisturbed_run / "tokenizer.json").vocab_size
    assert tensors["model.embed_tokens.weight"].shape == (vocab_size, 16)


def test_the_report_tells_how_the_text_was_split(undisturbed_run: Path, report: dict[str, Any]) -> None:
    data = report["dataset"]
    assert data["split_mode"] == "document" and data["split_note"] is None
    assert data["num_train_documents"] + data["num_val_documents"] == data["num_documents"] == 16
    by_repeats = report["memorization"]["exposure"]["by_repeats"]
    assert data["num_extra_documents"] == sum(entry["repeats"] * entry["num"] for entry in by_repeats)
    assert len(data["val_labels"]) == len(data["val_documents"]) == data["num_val_documents"]
    markdown = (undisturbed_run / "base/report.md").read_text()
    assert f"{report['val_bpb']:.3f} +- {report['val_bpb_stderr']:.3f} bits per byte" in markdown
    assert f"{report['unigram_bpb']:.3f}" in markdown


def test_the_memorization_report_gives_every_figure_with_its_sample(
    undisturbed_run: Path, report: dict[str, Any]
) -> None:
    found = json.loads((undisturbed_run / "base/memorization_report.json").read_text())
    assert found["subject"] == report["subject"]
    exposure, extraction = found["exposure"], found["extraction"]
    assert [entry["repeats"] for entry in exposure["by_repeats"]] == [1]
    assert exposure["left_out"] == [4, 16, 64]
    assert (
        exposure["share_of_training_tokens"] < 0.006
    )  # those that are inserted once stay, whatever their share
    assert exposure["controls"]["num"] == 16 and exposure["num_candidates"] >= 256
    assert exposure["by_repeats"][0]["median_bits"] == report["exposure_bits"]
    assert [stratum["occurrences"] for stratum in extraction["strata"]] == [
        "1",
        "2-4",
        "5-16",
        "17-64",
        "65+",
    ]
    assert extraction["strata"][0]["extractable"] == report["extractable"]
    assert report["extractable"]["num_examples"] >= 100
    assert extraction["heldout"]["extractable"] == report["extractable_heldout"]
    assert report["memorization"]["report"] == "base/memorization_report.json"
    markdown = (undisturbed_run / "base/report.md").read_text()
    assert "## Memorization" in markdown and "| never (control) | 16 |" in markdown


def test_the_losses_fall(report: dict[str, Any]) -> None:
    losses = [point["train_loss"] for point in report["losses"]]
    assert len(losses) == 60
    assert losses[-1] < losses[0] - 0.3


def test_a_corpus_without_enough_text_is_refused(
    new_run: MakeRun, base_config: MakeConfig, make_tokens: MakeTokens
) -> None:
    run_dir = new_run("small")
    make_tokens(run_dir, ["tiny"])
    with pytest.raises(ContractError) as caught:
        base.run(context(run_dir), base_config())
    assert caught.value.code == Code.CORPUS_TOO_SMALL


def test_held_out_documents_without_text_are_no_validation(
    new_run: MakeRun, base_config: MakeConfig, make_tokens: MakeTokens
) -> None:
    run_dir = new_run("empty")
    make_tokens(run_dir, [" ".join(map(str, range(2_000))), *[""] * 20])
    with pytest.raises(ContractError, match="held-out text has 0 tokens") as caught:
        base.run(context(run_dir), base_config(canary_count=0))
    assert caught.value.code == Code.CORPUS_TOO_SMALL


def test_one_document_is_trained_with_a_warning(
    new_run: MakeRun, base_config: MakeConfig, make_tokens: MakeTokens
) -> None:
    run_dir = new_run("one")
    make_tokens(run_dir, [(run_dir / "corpus.txt").read_text()])
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
    stopped.events = _StopAt(stopped, 7)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        base.run(stopped, config)
    base.run(context(parts), config)
    read = [json.loads((d / "base/train_report.json").read_text())["losses"] for d in (whole, parts)]
    assert read[0] == read[1]


@pytest.mark.parametrize("mode", ["sharded", "packed"])
def test_every_dataset_mode_goes_on_bit_for_bit_after_any_step(
    new_run: MakeRun, base_config: MakeConfig, mode: str
) -> None:
    config = base_config(
        max_steps=9, dataset_mode=mode, device_batch_size=16, grad_accum_steps=2, canary_count=0
    )  # two epochs
    whole, parts = new_run("whole"), new_run("parts")
    base.run(context(whole), config)
    for step in (1, 2, 5, 6, 8):
        stopped = context(parts)
        stopped.events = _StopAt(stopped, step)  # type: ignore[assignment]
        with pytest.raises(Interrupted):
            base.run(stopped, config)
    base.run(context(parts), config)
    found = [(d / "base/checkpoint/model.safetensors").read_bytes() for d in (whole, parts)]
    assert found[0] == found[1]
    read = [json.loads((d / "base/train_report.json").read_text())["losses"] for d in (whole, parts)]
    assert read[0] == read[1] and len(read[0]) == 9


@pytest.mark.parametrize("mode", ["sharded", "packed"])
def test_every_dataset_mode_trains_and_names_what_it_held_out(
    new_run: MakeRun, base_config: MakeConfig, mode: str
) -> None:
    run_dir = new_run(mode)
    base.run(context(run_dir), base_config(max_steps=2, dataset_mode=mode))
    data = json.loads((run_dir / "base/train_report.json").read_text())["dataset"]
    held_out = json.loads((run_dir / "base/holdout.json").read_text())
    assert data["dataset_mode"] == mode
    assert data["val_documents"] == held_out["document_ids"]
    assert [f"id-{i}" for i in held_out["document_indices"]] == held_out["document_ids"]
    assert (data["packing"] is not None) == (mode == "packed")


def test_memory_and_sharded_train_the_same(new_run: MakeRun, base_config: MakeConfig) -> None:
    losses = []
    for mode in ("memory", "sharded"):
        run_dir = new_run(mode)
        base.run(context(run_dir), base_config(max_steps=3, dataset_mode=mode))
        losses.append(json.loads((run_dir / "base/train_report.json").read_text())["losses"])
    assert losses[0] == losses[1]


def test_tokens_of_another_tokenizer_are_refused_with_both_digests(
    new_run: MakeRun, base_config: MakeConfig
) -> None:
    run_dir = new_run("other")
    with (run_dir / "tokenizer.json").open("a") as file:
        file.write("\n")
    with pytest.raises(ContractError, match="made with the tokenizer") as caught:
        base.run(context(run_dir), base_config())
    assert caught.value.code == Code.INPUT_CHANGED


def test_a_training_goes_on_with_another_number_of_ranks_of_the_same_global_batch(
    new_run: MakeRun, base_config: MakeConfig, finish_stage: Callable[..., int]
) -> None:
    whole, parts = new_run("whole"), new_run("parts")
    settings: dict[str, Any] = {"max_steps": 8, "precision": "float32", "learning_rate": 1e-3}
    assert finish_stage(whole, device_batch_size=4, **settings) == 0
    stopped = context(parts)
    stopped.events = _StopAt(stopped, 4)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        base.run(stopped, base_config(device_batch_size=4, **settings))
    assert finish_stage(parts, nproc=2, device_batch_size=2, **settings) == 0
    read = [json.loads((d / "base/train_report.json").read_text())["losses"] for d in (whole, parts)]
    found = [[point["train_loss"] for point in losses] for losses in read]
    assert len(found[0]) == 8
    assert found[1] == pytest.approx(found[0], abs=1e-4)
