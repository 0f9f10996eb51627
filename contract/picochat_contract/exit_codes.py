"""Exit codes of a stage process and of `picochat-client`."""

from enum import IntEnum


class StageExit(IntEnum):
    DONE = 0
    FAILED = 1  # a fault of ours or of the machine
    BAD_INPUT = 2  # the user's data or settings; error.json says which
    INTERRUPTED = 75  # SIGTERM: a checkpoint was written, start again to go on


class ClientExit(IntEnum):
    OK = 0  # approved, or finished where no gate was asked for
    RUN_FAILED = 1
    GATE_BLOCKED = 2  # by the release gate, or by preflight before it
    GATE_WARN = 3  # only with --strict
    LOST = 4  # attempts ran out: the workers died
    CANCELLED = 5
    USAGE = 64
    UNREACHABLE = 75  # no server before --timeout
