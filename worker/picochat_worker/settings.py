"""Settings of the worker; the only module of the worker that reads the environment (PICOCHAT_WORKER_*)."""

import os
import platform
import re
import sys
from pathlib import Path

from picochat_contract.configs import Device
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "PICOCHAT_WORKER_"
OUR_PREFIX = "PICOCHAT_"  # also what a server on this host was told, such as its database's password
ATTEMPT_MARK = "PICOCHAT_ATTEMPT"  # in the environment of every process of an attempt
FOR_STAGES = "PICOCHAT_DDP_"  # how the ranks of a stage wait for each other: read by the stage process itself
WORK_DIR_MARK = "PICOCHAT_WORK_DIR"  # which worker's attempt it is; one worker holds one work folder


class WorkerSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    url: str = Field(default="http://127.0.0.1:7460", pattern=r"^https?://")
    """Address of the control plane, without /api/v1."""
    api_key: SecretStr
    """Key with the scope `worker`."""
    name: str = Field(default_factory=platform.node, min_length=1, max_length=120)
    """Shown on the workers page; one name for one worker."""
    work_dir: Path | None = None
    """Folder of this worker alone; default ~/.picochat/worker/<name>."""
    store_dir: Path | None = None
    """The server's artifact folder, where it is on this disk: inputs are then hard links, not downloads."""
    broker_url: str | None = None
    """redis:// address of the hints; None means that the worker only polls."""
    queue: str = "picochat"
    """Celery queue of the hints; the server publishes to the same one."""
    poll_seconds: float = Field(default=2.0, gt=0)
    """Longest pause between two claims without a broker."""
    fallback_poll_seconds: float = Field(default=30.0, gt=0)
    """The same beside a broker: the most that a lost hint can cost."""
    stage_command: tuple[str, ...] = (sys.executable, "-m", "picochat_trainer")
    """Starts a stage, torchrun included where it has several ranks; `<stage> --config FILE --out DIR` is added."""
    device: Device = "auto"
    """Given to jobs that leave the device open."""
    nproc: int | None = Field(default=None, ge=1, le=64)
    """At most this many torchrun processes a stage (the GPUs of this worker); None means as the job asks."""
    request_timeout_seconds: float = Field(default=60.0, gt=0)
    upload_part_bytes: int = Field(default=64 * 2**20, ge=1)
    """Larger files go up in parts of this size, so that a broken connection costs one part."""
    upload_patience_seconds: float = Field(default=600.0, gt=0)
    """Uploads that fail for so long while the lease is live end the attempt as failed, cause `upload`."""
    cache_bytes: int = Field(default=50 * 2**30, ge=0)
    """Files of earlier stages that are kept in the work folder, so that they are not downloaded again: at most so
    much, and at most a tenth of the disk; 0 keeps none."""
    drain_seconds: float = Field(default=60.0, gt=0)
    """A worker that is told to stop gives its stage so long for a checkpoint."""
    tick_seconds: float = Field(default=0.1, gt=0)
    """Pause of the supervisor's loop."""

    @property
    def home(self) -> Path:
        """The work folder as an absolute path."""
        safe_name = re.sub(r"[^A-Za-z0-9._-]|^\.+", "_", self.name)
        return (self.work_dir or Path.home() / ".picochat" / "worker" / safe_name).absolute()


def stage_environment(attempt: str, settings: WorkerSettings) -> dict[str, str]:
    """The environment of a stage process: ours without any secret of picochat, and with the attempt's marks."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(FOR_STAGES) or not name.startswith(OUR_PREFIX)
    }
    return inherited | {
        ATTEMPT_MARK: attempt,
        WORK_DIR_MARK: str(settings.home),
        # The working directory is the run folder, whose names (base/, eval/) must not shadow packages.
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }
