"""The pipeline as a graph: which stage needs which files of which stage.

dataset -> honesty -> preflight -> tokenizer -> base -> sft -> fit, eval -> audit -> gate -> report
"""

from dataclasses import dataclass
from enum import StrEnum

from picochat_contract import layout
from picochat_contract.config_base import Config
from picochat_contract.configs import (
    AuditConfig,
    BaseConfig,
    EvalConfig,
    FitConfig,
    GateConfig,
    PreflightConfig,
    ReportConfig,
    SftConfig,
)
from picochat_contract.data_configs import DatasetConfig, HonestyConfig, TokenizerConfig


class StageName(StrEnum):
    DATASET = "dataset"
    HONESTY = "honesty"  # data against data, before anything is trained
    PREFLIGHT = "preflight"
    TOKENIZER = "tokenizer"
    BASE = "base"
    SFT = "sft"
    FIT = "fit"
    EVAL = "eval"
    AUDIT = "audit"  # eval against what was really trained on, generated text against all of it
    GATE = "gate"
    REPORT = "report"


@dataclass(frozen=True, kw_only=True)
class StageDefinition:
    """A stage: its config model, the stages it waits for, the run-folder files it reads."""

    name: StageName
    config: type[Config]
    needs: tuple[StageName, ...]
    inputs: tuple[str, ...]
    """Run-folder paths; one that ends in '/' means every file below it."""
    uses_torch: bool = False
    distributed: bool = False
    """True: the stage process starts `nproc_per_node` ranks of itself through torchrun."""


N = StageName  # short for the table below
DATA = (
    layout.CORPUS_MANIFEST,
    layout.CORPUS_DIR + "/",
    layout.CHAT,
    layout.EVAL,
    layout.PREFERENCES,
    layout.EXTERNAL_DIR + "/",
)
"""Everything that a dataset stage makes for others to read."""
STAGES: dict[StageName, StageDefinition] = {
    stage.name: stage
    for stage in (
        StageDefinition(name=N.DATASET, config=DatasetConfig, needs=(), inputs=()),
        StageDefinition(name=N.HONESTY, config=HonestyConfig, needs=(N.DATASET,), inputs=DATA),
        StageDefinition(
            name=N.PREFLIGHT,
            config=PreflightConfig,
            needs=(N.DATASET, N.HONESTY),
            inputs=(
                layout.CORPUS_MANIFEST,
                layout.CHAT,
                layout.EVAL,
                layout.PREFERENCES,
                layout.EXTERNAL_DIR + "/",
                layout.HONESTY,
            ),
        ),
        StageDefinition(
            name=N.TOKENIZER,
            config=TokenizerConfig,
            needs=(N.DATASET, N.PREFLIGHT),
            inputs=(layout.CORPUS_MANIFEST, layout.CORPUS_DIR + "/"),
        ),
        StageDefinition(
            name=N.BASE,
            config=BaseConfig,
            needs=(N.DATASET, N.TOKENIZER),
            inputs=(
                layout.CORPUS_MANIFEST,
                layout.TOKENIZER,
                layout.TOKENIZER_CONFIG,
                layout.TOKENS_DIR + "/",
            ),
            uses_torch=True,
            distributed=True,
        ),
        StageDefinition(
            name=N.SFT,
            config=SftConfig,
            needs=(N.DATASET, N.TOKENIZER, N.BASE),
            inputs=(layout.CHAT, layout.TOKENIZER, layout.TOKENIZER_CONFIG, layout.BASE_BEST + "/"),
            uses_torch=True,
            distributed=True,
        ),
        StageDefinition(
            name=N.FIT,
            config=FitConfig,
            needs=(N.DATASET, N.TOKENIZER, N.SFT),
            inputs=(
                layout.CHAT,
                layout.TOKENIZER,
                layout.TOKENIZER_CONFIG,
                layout.SFT_CHECKPOINT + "/",
                layout.SFT_REPORT,
            ),
            uses_torch=True,
        ),
        StageDefinition(
            name=N.EVAL,
            config=EvalConfig,
            needs=(N.DATASET, N.HONESTY, N.TOKENIZER, N.SFT),
            inputs=(
                layout.EVAL,
                layout.CORPUS_MANIFEST,
                layout.CORPUS_DIR + "/",
                layout.HONESTY,
                layout.TOKENIZER,
                layout.TOKENIZER_CONFIG,
                layout.SFT_CHECKPOINT + "/",
            ),
            uses_torch=True,
        ),
        StageDefinition(
            name=N.AUDIT,
            config=AuditConfig,
            needs=(N.DATASET, N.BASE, N.SFT, N.EVAL),
            inputs=(
                *DATA,
                layout.BASE_REPORT,
                layout.HOLDOUT,
                layout.BASE_SAMPLES,
                "base/sample.txt",
                layout.SFT_REPORT,
                "sft/sample.txt",
                layout.EVAL_REPORT,
            ),
        ),
        StageDefinition(
            name=N.GATE,
            config=GateConfig,
            needs=(N.DATASET, N.HONESTY, N.PREFLIGHT, N.BASE, N.SFT, N.FIT, N.EVAL, N.AUDIT),
            inputs=(
                # the data files only for their digests: the honesty report must be about these
                layout.CORPUS_MANIFEST,
                layout.CHAT,
                layout.EVAL,
                *layout.EVIDENCE_PATHS.values(),
                f"{layout.SFT_CHECKPOINT}/{layout.WEIGHTS}",
            ),
        ),
        StageDefinition(
            name=N.REPORT,
            config=ReportConfig,
            needs=tuple(stage for stage in N if stage is not N.REPORT),
            inputs=(
                layout.CORPUS_MANIFEST,
                layout.TOKENIZER,
                *layout.EVIDENCE_PATHS.values(),
                layout.GATE_REPORT,
                "base/sample.txt",
                "sft/sample.txt",
            ),
        ),
    )
}


def reads(stage: StageName, path: str) -> bool:
    """True if `stage` takes the run-folder file `path` as an input."""
    return any(
        path.startswith(wanted) if wanted.endswith("/") else path == wanted for wanted in STAGES[stage].inputs
    )
