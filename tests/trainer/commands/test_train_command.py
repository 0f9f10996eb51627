"""`picochat train base` and `picochat train sft` as a user calls them."""

import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from picochat_client.program import main
from picochat_contract.config_base import Config
from picochat_contract.configs import BaseConfig, BaseSection, ModelConfig, Resources, SftConfig
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.learning_rates import law_warmup
from picochat_contract.stages import StageName
from picochat_trainer.commands import train
from picochat_trainer.commands.train_options import NAMES
from picochat_trainer.local_run import LocalRun, LocalStage
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from support.corpora import write_corpus

TINY = [
    "--max-steps",
    "6",
    "--batch-size",
    "2",
    "--eval-every",
    "3",
    "--log-every",
    "1",
    "--sample-tokens",
    "4",
    "--device",
    "cpu",
    "--compile",
    "off",
]
MODEL = ["--context-size", "64", "--n-layer", "1", "--n-head", "2", "--n-embd", "16"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """corpus.txt, corpus_manifest.json, tokenizer.json and chat.jsonl."""
    write_corpus(
        tmp_path, [topics[name].strip() for name in sorted(topics, key=lambda n: len(topics[n]))[8:16]]
    )
    tokenizer = train_tokenizer(TokenizerConfig(type="byte"), [])
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json")
    rows = [{"user": f"Say {i}.", "assistant": str(i), "group": f"g{i % 4}"} for i in range(12)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def train_base(files: Path, *options: str) -> int:
    arguments = ["--corpus", str(files / "corpus.txt"), "--tokenizer", str(files / "tokenizer.json")]
    return main(["train", "base", *arguments, "--out-dir", str(files / "base"), *MODEL, *TINY, *options])


def train_sft(files: Path, *options: str) -> int:
    arguments = ["--input", str(files / "chat.jsonl"), "--tokenizer", str(files / "tokenizer.json")]
    arguments += ["--checkpoint", str(files / "base/best_checkpoint"), "--out-dir", str(files / "sft")]
    return main(["train", "sft", *arguments, *TINY, *options])


@pytest.mark.usefixtures("stage_programs")
def test_base_then_sft_on_files_of_ones_own(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = ["--corpus-manifest", str(files / "corpus_manifest.json"), "--split-mode", "document"]
    assert train_base(files, *manifest, "--canary-count", "3", "--learning-rate", "0.01") == ClientExit.OK
    report = json.loads((files / "base/train_report.json").read_text())
    assert report["dataset"]["split_mode"] == "document"
    assert report["canary_count"] == 3
    assert (report["config"]["learning_rate"], report["config"]["device_batch_size"]) == (0.01, 2)
    assert (files / "base/best_checkpoint/model.safetensors").exists()
    assert train_sft(files, "--early-stop-patience", "6") == ClientExit.OK
    sft = json.loads((files / "sft/sft_report.json").read_text())
    assert sft["base_subject"] == report["subject"]
    assert str(files / "sft/report.md") in capsys.readouterr().out


def test_without_a_manifest_the_end_of_the_text_is_held_out(files: Path) -> None:
    assert train_base(files) == ClientExit.OK
    report = json.loads((files / "base/train_report.json").read_text())
    assert report["dataset"]["split_mode"] == "window"


def test_tokens_are_built_once_and_can_be_given(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        recorded_runs(patch)
        train_base(files, "--dataset-mode", "packed")
        manifest = files / "base/tokens/token_shards_manifest.json"
        written = manifest.stat().st_mtime_ns
        train_base(files)
    assert "reusing the tokens" in capsys.readouterr().err and manifest.stat().st_mtime_ns == written
    arguments = ["--tokens", str(files / "base/tokens"), "--tokenizer", str(files / "tokenizer.json")]
    assert (
        main(["train", "base", *arguments, "--out-dir", str(files / "other"), *MODEL, *TINY]) == ClientExit.OK
    )
    assert not (files / "other/tokens").exists()


def recorded_runs(monkeypatch: pytest.MonkeyPatch) -> list[LocalRun]:
    """The runs that commands start from now on; none does anything."""
    started: list[LocalRun] = []

    class Recorded(LocalRun):
        def run(self) -> list[LocalStage]:
            started.append(self)
            raise ContractError(Code.INTERNAL, "seen")

    monkeypatch.setattr(train, "LocalRun", Recorded)
    return started


@pytest.mark.parametrize(
    ("corpus", "manifest"),
    [("corpus.txt", None), (".", "corpus_manifest.json"), ("corpus_manifest.json", "corpus_manifest.json")],
)
def test_tokens_are_held_to_the_manifest_they_were_made_of_and_to_no_other(
    files: Path, monkeypatch: pytest.MonkeyPatch, corpus: str, manifest: str | None
) -> None:
    """The output folder may hold a manifest, too: of a bare text it says nothing."""
    started = recorded_runs(monkeypatch)
    options = ["--corpus", str(files / corpus), "--tokenizer", str(files), "--out-dir", str(files)]
    assert main(["train", "base", *options]) == ClientExit.USAGE
    path = Path(started[0].paths["corpus_manifest.json"])
    assert path == files / manifest if manifest else not path.exists()


def test_every_option_reaches_the_config(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = recorded_runs(monkeypatch)
    options = ["--optimizer", "muon", "--attn-backend", "math", "--loss-spike-rollback", "--auto-lr-scaling"]
    assert train_base(files, *options, "--dataset-mode", "packed", "--canary-count", "0") == ClientExit.USAGE
    assert train_base(files, "--no-loss-spike-rollback") == ClientExit.USAGE
    first, second = (run.stages[StageName.BASE] for run in started)
    assert isinstance(first, BaseConfig) and isinstance(second, BaseConfig)
    assert (first.optimizer, first.attn_backend, first.dataset_mode) == ("muon", "math", "packed")
    assert (first.loss_spike_rollback, first.auto_lr_scaling, first.canary_count) == (True, True, 0)
    assert (second.optimizer, second.loss_spike_rollback, second.auto_lr_scaling) == ("adamw", False, False)


ENGINE = {  # option, field, value
    "--norm-type layernorm": ("norm_type", "layernorm"),
    "--position-encoding learned": ("position_encoding", "learned"),
    "--activation relu2": ("activation", "relu2"),
    "--mlp-hidden 40": ("mlp_hidden", 40),
    "--logit-softcap 15": ("logit_softcap", 15.0),
}
LOOP = {
    "--lr-decay wsd": ("lr_decay", "wsd"),
    "--decay-fraction 0.3": ("decay_fraction", 0.3),
    "--ema-decay 0.9": ("ema_decay", 0.9),
    "--keep-checkpoint-every 2": ("keep_every", 2),
    "--gradient-checkpointing": ("gradient_checkpointing", True),
    "--loss-chunk-tokens 64": ("loss_chunk_tokens", 64),
    "--attn-backend flex": ("attn_backend", "flex"),
    "--stop-after-steps 3": ("stop_after_steps", 3),
    "--document-mask": ("document_mask", True),
}


def test_every_option_of_the_engine_reaches_model_and_config(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = recorded_runs(monkeypatch)
    assert train_base(files, *" ".join([*ENGINE, *LOOP]).split()) == ClientExit.USAGE
    config = started[0].stages[StageName.BASE]
    assert isinstance(config, BaseConfig)
    assert {name: getattr(config.model, name) for name, _ in ENGINE.values()} == dict(ENGINE.values())
    assert {name: getattr(config, name) for name, _ in LOOP.values()} == dict(LOOP.values())
    assert config.learning_rate is None  # derived


@pytest.mark.parametrize(
    ("options", "accumulation", "source"),
    [
        ([], 1, "derived"),
        (["--max-steps", "10000"], 231, "derived"),
        (["--max-steps", "10000", "--grad-accum-steps", "3"], 3, "given"),
        (["--global-batch-tokens", "1024"], 4, "given"),
    ],
)
def test_the_batch_is_settled_for_all_ranks_before_base_begins(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    accumulation: int,
    source: str,
) -> None:
    started = recorded_runs(monkeypatch)
    assert train_base(files, "--nproc-per-node", "2", *options) == ClientExit.USAGE
    config = started[0].stages[StageName.BASE]
    assert isinstance(config, BaseConfig)
    assert (config.grad_accum_steps, config.batch_source) == (accumulation, source)


def test_a_batch_that_does_not_fit_is_refused_before_anything_is_read(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_base(files, "--global-batch-tokens", "1000") == ClientExit.USAGE
    assert "2 x 64 x 1 = 128 tokens: got 1,000; the nearest values that fit are 896 and 1,024" in (
        capsys.readouterr().err
    )
    assert not (files / "base").exists()


def test_sft_has_the_options_of_the_loop(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = recorded_runs(monkeypatch)
    shared = {option: value for option, value in LOOP.items() if option != "--document-mask"}
    assert train_sft(files, *" ".join(shared).split()) == ClientExit.USAGE
    config = started[0].stages[StageName.SFT]
    assert {name: getattr(config, name) for name, _ in shared.values()} == dict(shared.values())


def test_which_turns_are_learned_reaches_the_config(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = recorded_runs(monkeypatch)
    for options in ([], ["--train-on", "last"], ["--train-on", "all"]):
        assert train_sft(files, *options) == ClientExit.USAGE
    configs = [run.stages[StageName.SFT] for run in started]
    assert [config.model_dump()["train_on"] for config in configs] == ["last", "last", "all"]


def test_the_help_says_what_the_warm_up_is_without_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "base", "--help"]) == ClientExit.OK
    assert f"without it {law_warmup(10**6)} (arXiv" in " ".join(capsys.readouterr().out.split())
    assert law_warmup(100) == 20, "a fifth of the steps at most"


def test_ranks_and_machines_reach_the_resources(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = recorded_runs(monkeypatch)
    ranks = [
        "--nproc-per-node",
        "4",
        "--nnodes",
        "2",
        "--rdzv-endpoint",
        "first:29500",
        "--distributed-strategy",
        "fsdp",
    ]
    assert train_base(files, *ranks) == ClientExit.USAGE
    resources = started[0].resources
    assert (resources.num_ranks, resources.distributed_strategy) == (8, "fsdp")
    assert resources.rdzv_endpoint == "first:29500"


def test_tensorboard_files_go_where_they_are_wanted(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = recorded_runs(monkeypatch)
    train_base(files, "--tensorboard-log-dir", str(files / "board"))
    train_sft(files, "--tensorboard-log-dir", str(files / "board"))
    base, sft = started
    assert base.paths["base/tensorboard"] == sft.paths["sft/tensorboard"] == str(files / "board")
    for run, stage in ((base, StageName.BASE), (sft, StageName.SFT)):
        assert run.stages[stage].model_dump()["tensorboard"] is True


def test_without_corpus_and_tokens_it_says_what_is_missing(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tokenizer", str(files / "tokenizer.json"), "--out-dir", str(files / "base")]
    assert main(["train", "base", *options]) == ClientExit.USAGE
    assert "neither --corpus nor --tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--n-embd", "15"], "invalid_shape"),
        (["--max-steps", "0"], "invalid_value"),
        (["--lr-decay", "exponential"], "usage"),
        (["--nnodes", "2"], "invalid_value"),  # and nowhere to meet
        (["--resume-from", "base"], "file_unreadable"),
    ],
)
def test_a_wrong_call_is_exit_64(
    files: Path, options: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_base(files, *options) == ClientExit.USAGE
    assert f"error [{code}]" in capsys.readouterr().err


def test_a_missing_checkpoint_is_exit_1_with_its_code(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_sft(files) == ClientExit.RUN_FAILED
    assert "file_unreadable: no checkpoint at" in capsys.readouterr().err


PLACES = {"tokenizer", "out_dir", "resume_from", "tensorboard_log_dir", "confirm_paid_launch"}


@pytest.mark.parametrize(
    ("command", "configs", "places"),
    [
        (train.base, (BaseSection, ModelConfig, Resources), {"corpus", "tokens", "corpus_manifest"}),
        (train.sft, (SftConfig, Resources), {"input", "checkpoint"}),
    ],
)
def test_no_option_is_left_behind_on_the_way_to_the_configs(
    command: Callable[..., int], configs: tuple[type[Config], ...], places: set[str]
) -> None:
    """Each is a field by its own name or its other one, or it names a place or answers a question."""
    fields = {field for config in configs for field in config.model_fields}
    options = set(signature(command).parameters)
    assert {NAMES.get(option, option) for option in options - places - PLACES} <= fields
    assert places | PLACES <= options
