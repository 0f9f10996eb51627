"""`train base` and `train sft` on paid GPUs: nothing is started, or built, before somebody has said yes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from picochat_client import paid_launch as asking
from picochat_client.program import main
from picochat_contract.configs import ModelConfig
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.preflight_facts import GpuFacts
from picochat_trainer import paid_launch
from picochat_trainer.commands import train
from picochat_trainer.local_run import LocalRun, LocalStage
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer

H200 = GpuFacts(name="NVIDIA H200", memory_bytes=140 << 30, has_bf16=True, capability=9)
LONG = ["--max-steps", "100000", "--batch-size", "16", "--grad-accum-steps", "1"]
LARGE = {"n_layer": 24, "n_head": 16, "n_embd": 1024, "sequence_len": 1024}
OPTIONS = {
    "n_layer": "--n-layer",
    "n_head": "--n-head",
    "n_embd": "--n-embd",
    "sequence_len": "--context-size",
}
MODEL = [word for name, value in LARGE.items() for word in (OPTIONS[name], str(value))]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """tokenizer.json, corpus.txt, chat.jsonl and checkpoint/, which has no weights."""
    tokenizer = train_tokenizer(TokenizerConfig(type="byte"), [])
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json")
    (tmp_path / "corpus.txt").write_text("Once upon a time.\n" * 50)
    (tmp_path / "chat.jsonl").write_text('{"user": "Hi.", "assistant": "Hello."}\n')
    (tmp_path / "checkpoint").mkdir()
    config = ModelConfig.model_validate(LARGE).model_dump(mode="json") | {
        "vocab_size": tokenizer.get_vocab_size()
    }
    (tmp_path / "checkpoint/config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[LocalRun]:
    """What would have been started; nothing is."""
    found: list[LocalRun] = []

    class Recorded(LocalRun):
        def run(self) -> list[LocalStage]:
            found.append(self)
            raise ContractError(Code.INTERNAL, "seen")

    monkeypatch.setattr(train, "LocalRun", Recorded)
    return found


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def see(count: int) -> None:
        monkeypatch.setattr(paid_launch, "visible_gpus", lambda: (H200,) * count)

    return see


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[str]]:
    def at_a_terminal(value: bool) -> list[str]:
        asked: list[str] = []

        def confirm(question: str, **_: object) -> bool:
            asked.append(question)
            return value

        monkeypatch.setattr(asking, "is_terminal", lambda: True)
        monkeypatch.setattr(asking.typer, "confirm", confirm)
        return asked

    return at_a_terminal


def base(files: Path, *options: str) -> int:
    given = [
        "--corpus",
        str(files / "corpus.txt"),
        "--tokenizer",
        str(files),
        "--out-dir",
        str(files / "out"),
    ]
    return main(["train", "base", *given, *LONG, *MODEL, *options])


def sft(files: Path, *options: str) -> int:
    given = ["--input", str(files / "chat.jsonl"), "--tokenizer", str(files), "--out-dir", str(files / "out")]
    return main(["train", "sft", *given, "--checkpoint", str(files / "checkpoint"), *LONG, *options])


Command = Callable[..., int]
BOTH = pytest.mark.parametrize("command", [base, sft])


@BOTH
def test_without_a_terminal_it_is_refused_and_nothing_is_built(
    files: Path, started: list[LocalRun], command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(files, "--device", "cuda") == ClientExit.USAGE
    message = capsys.readouterr().err
    assert "error [confirmation_required]: " in message and "--confirm-paid-launch" in message
    assert started == [] and not (files / "out").exists()


@BOTH
@pytest.mark.parametrize("option", ["--confirm-paid-launch", "--yes"])
def test_an_option_confirms_and_the_same_training_is_not_asked_about_again(
    files: Path, started: list[LocalRun], command: Command, option: str
) -> None:
    command(files, "--device", "cuda", option)
    assert len(started) == 1
    record = json.loads((files / "out" / paid_launch.RECORD).read_text())
    parameters = record["launch"]["parameters"]
    assert 280e6 < parameters < 320e6
    command(files, "--device", "cuda")
    assert len(started) == 2
    assert command(files, "--device", "cuda", "--max-steps", "200000") == ClientExit.USAGE
    assert len(started) == 2


@BOTH
@pytest.mark.parametrize(("value", "code", "starts"), [(False, ClientExit.CANCELLED, 0), (True, None, 1)])
def test_on_a_terminal_the_answer_counts(
    files: Path,
    started: list[LocalRun],
    answer: Callable[[bool], list[str]],
    command: Command,
    value: bool,
    code: ClientExit | None,
    starts: int,
) -> None:
    asked = answer(value)
    found = command(files, "--device", "cuda")
    assert (len(asked), len(started)) == (1, starts)
    assert code is None or found == code


@BOTH
@pytest.mark.parametrize(
    ("count", "options", "is_asked"),
    [
        (0, [], False),
        (1, [], True),
        (1, ["--device", "cpu"], False),
        (1, ["--stop-after-steps", "100"], False),
    ],
)
def test_only_gpus_and_only_for_long_are_asked_about(
    files: Path,
    started: list[LocalRun],
    gpus: Callable[[int], None],
    answer: Callable[[bool], list[str]],
    command: Command,
    count: int,
    options: list[str],
    is_asked: bool,
) -> None:
    gpus(count)
    asked = answer(False)
    command(files, *options)
    assert (len(asked), len(started)) == ((1, 0) if is_asked else (0, 1))


def test_the_checkpoint_before_is_as_good_as_the_one_that_is_gone(
    files: Path, started: list[LocalRun]
) -> None:
    (files / "checkpoint").rename(files / "checkpoint.previous")
    assert sft(files, "--device", "cuda") == ClientExit.USAGE
    assert started == []


def test_where_there_is_no_checkpoint_the_stage_says_so(files: Path, started: list[LocalRun]) -> None:
    for broken in ("[1]", "{", '{"n_layer": "many"}'):
        (files / "checkpoint/config.json").write_text(broken)
        sft(files, "--device", "cuda")
    assert len(started) == 3
