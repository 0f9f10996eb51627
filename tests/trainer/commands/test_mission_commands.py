"""Every `picochat` line of the mission's texts that is about data, training or planning is understood.

They are read as the program reads them and not run. Left out, as they have no commands yet: `train dpo` and
`run tiny --dpo-steps`, `train sft --peft lora`, `train hf-sft`, `export hf`, `eval lm-harness`, `registry`, `web` and
`demo`; and `chat` and `serve`, which have tests of their own. The mission's `torchrun ... -m picochat.cli train base --ddp` is `--nproc-per-node` here, which starts torchrun.
"""

import shlex
from typing import Any

import pytest
import typer
from picochat_client import program
from picochat_contract.exit_codes import ClientExit

MANUAL = "--tokenizer runs/manual/tokenizer.json"
BASE = (
    f"train base --corpus runs/manual/corpus.txt {MANUAL} --corpus-manifest runs/manual/corpus_manifest.json "
    "--split-mode document --out-dir runs/manual/base --context-size 128"
)
SFT = (
    f"train sft --input examples/tiny_chat.jsonl {MANUAL} --checkpoint runs/manual/base/best_checkpoint "
    "--out-dir runs/manual/sft"
)
EVAL = (
    f"eval chat --input examples/tiny_eval.jsonl --checkpoint runs/manual/sft/checkpoint {MANUAL} "
    "--out-dir runs/manual/eval"
)
LINES = [
    "data preview --dataset-pack examples/tiny_dataset_pack.json",
    "data preview --input runs/fineweb-edu-sample/corpus.txt",
    "data hf-import --dataset HuggingFaceFW/fineweb-edu --split train --text-column text --max-rows 1000 "
    "--out runs/fineweb-edu-sample/corpus.txt",
    "data eval-starter --input runs/fineweb-edu-sample/corpus.txt --out runs/x/eval_starter.jsonl --max-items 40",
    "data preference-starter --input runs/manual/chat.jsonl --out data/preferences.jsonl",
    "tok train --input runs/manual/corpus.txt --out runs/manual/tokenizer.json",
    "tok train --input runs/manual/corpus.txt --out runs/manual/tokenizer-bpe.json --type bpe --vocab-size 512 "
    "--min-freq 2",
    f"{BASE} --max-steps 300",
    f"{BASE} --max-steps 10000 --max-minutes 45 --early-stop-patience 3 --canary-count 3",
    "train base --nproc-per-node 8 --distributed-strategy fsdp --corpus data/corpus.txt "
    "--tokenizer runs/tokenizer.json --out-dir runs/base-fsdp-smoke --device cuda --precision bf16",
    f"{BASE} --tensorboard-log-dir runs/manual/tensorboard",
    f"train lr-range --corpus runs/manual/corpus.txt {MANUAL} --out-dir runs/rates --min-lr 1e-6 --max-lr 3e-4 "
    "--steps 100 --divergence-factor 4 --smoothing-beta 0.98",
    f"{SFT} --max-steps 600 --early-stop-patience 6",
    f"{SFT} --train-on last",
    f"{SFT} --train-on all",
    EVAL,
    f"{EVAL} --support-corpus runs/manual/corpus.txt",
    "run tiny --dataset-pack runs/my-pack/dataset_pack.json --out-dir runs/my-scratch-model",
    "run tiny --out-dir runs/manual --dataset-pack runs/pack/dataset_pack.json --dpo-input data/preferences.jsonl",
    "run tiny --out-dir runs/monitored-smoke --tensorboard-log-dir runs/monitored-smoke/tensorboard",
    "run tiny --out-dir runs/x --max-minutes 45",
    "run tiny --out-dir runs/x --scale h200-1b-ddp8 --preflight-only",
    "run tiny --out-dir runs/x --scale h200-1b-ddp8 --dry-run-steps 100 --confirm-paid-launch",
    "sanity preh100",
    "sanity preh100 --capacity-scale h200-1b-ddp8",
    "scale plan --target-params 100m --dataset-tokens 2.5b --depth 16 --aspect-ratio 48 --head-dim 64 "
    "--vocab-size 8192 --context-size 512 --world-size 8 --per-device-batch-size 8 --grad-accum-steps 16 "
    "--target-param-data-ratio 20 --attn-backend flash --long-run-gate-profile skill_release --out plan.yaml",
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_mission_is_understood(line: str) -> None:
    assert parsed(shlex.split(line))


@pytest.mark.parametrize("option", ["--no-such-option", "--train-on first"])
def test_what_is_not_understood_is_told(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(shlex.split(f"{SFT} {option}")) == ClientExit.USAGE
    assert option.split()[0] in capsys.readouterr().err


def parsed(words: list[str]) -> dict[str, Any]:
    """The options that the program reads out of a command line."""
    command: Any = typer.main.get_command(program.app)
    context = command.make_context(program.PROGRAM, list(words))
    while hasattr(command, "resolve_command"):  # a group, whose own options are none
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context)
    return dict(context.params)
