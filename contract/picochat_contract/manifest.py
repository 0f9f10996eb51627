"""The stage protocol's files: the job that a stage process reads and the manifest that it writes last."""

from datetime import datetime
from typing import Any

from pydantic import Field

from picochat_contract.canonical import SHA256_HEX, digest_of
from picochat_contract.config_base import Config
from picochat_contract.configs import Resources
from picochat_contract.layout import Kind
from picochat_contract.stages import STAGES, StageName
from picochat_contract.version import STAGE_CODE, __version__


class OutputFile(Config):
    path: str
    """Relative to the run folder."""
    sha256: str = Field(pattern=SHA256_HEX.pattern)
    size_bytes: int = Field(ge=0)
    kind: Kind


class StageJob(Config):
    """`stages/<stage>/stage.json`: everything that one stage process is told."""

    stage: StageName
    config: dict[str, Any]
    """Validated by the stage into its config model."""
    resources: Resources = Resources()
    fingerprint: str | None = None
    run_id: str | None = None
    attempt_id: str | None = None
    inputs: dict[str, str] = {}
    """Run-folder path to sha256: checked before the stage starts. Empty on a command line."""
    paths: dict[str, str] = {}
    """Run-folder path to another path on this machine (absolute or relative to the working directory)."""


class Manifest(Config):
    """`stages/<stage>/manifest.json`: written last and atomically. No manifest, no output."""

    stage: StageName
    fingerprint: str
    code_version: str
    created_at: datetime
    duration_seconds: float = Field(ge=0)
    outputs: tuple[OutputFile, ...]
    metrics: dict[str, float] = {}
    """A few final numbers for lists and pages, such as val_bpb."""
    environment: dict[str, str] = {}
    """Python, torch, host, device: what a reader needs to rerun it."""


class StageError(Config):
    """`stages/<stage>/error.json`: why a stage process gave up."""

    code: str
    message: str
    param: str | None = None


def code_version(stage: StageName) -> str:
    return f"{__version__}+{stage}.{STAGE_CODE[stage]}"


def fingerprint(stage: StageName, config: Config, inputs: dict[str, str], resources: Resources) -> str:
    """sha256 over stage, config, input digests and code version: equal means the outputs can be reused.

    Of the resources only the number of training processes counts: each adds its rows to every step.
    """
    return digest_of(
        {
            "stage": stage.value,
            "config": config.model_dump(mode="json"),
            "inputs": inputs,
            "num_ranks": resources.num_ranks if STAGES[stage].distributed else 1,
            "code": code_version(stage),
        }
    )
