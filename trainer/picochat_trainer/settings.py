"""Settings that a stage process takes from the environment: how ranks wait for each other.

    PICOCHAT_DDP_TIMEOUT_MINUTES           longest wait of a rank for the others, in set-up and in a collective [120]
    PICOCHAT_DDP_SETUP_HEARTBEAT_SECONDS   pause between two signs of life of rank 0 while it sets up [30]

They say something about machines and networks, not about a run, so they are no part of a spec.
"""

import math
import os
from dataclasses import dataclass
from datetime import timedelta

from picochat_contract.errors import Code, ContractError

DDP_TIMEOUT = "PICOCHAT_DDP_TIMEOUT_MINUTES"
DDP_HEARTBEAT = "PICOCHAT_DDP_SETUP_HEARTBEAT_SECONDS"


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    timeout_minutes: float = 120.0
    heartbeat_seconds: float = 30.0

    @classmethod
    def from_environment(cls) -> "RankSettings":
        return cls(
            timeout_minutes=_positive(DDP_TIMEOUT, cls.timeout_minutes),
            heartbeat_seconds=_positive(DDP_HEARTBEAT, cls.heartbeat_seconds),
        )

    @property
    def timeout(self) -> timedelta:
        return timedelta(minutes=self.timeout_minutes)


def _positive(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ContractError(
            Code.INVALID_VALUE,
            f"{name} must be a number above 0, got {text!r}; the default is {default:g}",
            param=name,
        )
    return value
