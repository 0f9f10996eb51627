"""What can go wrong for a worker.

WorkerError
  LeaseLost      409 lease_lost: another attempt owns the stage; stop at once, send nothing more
  Unreachable    no answer, or one that a later try may better (connection, timeout, 5xx, 429)
  Rejected       the server refuses this request; repeating it changes nothing
  BadDownload    the bytes are not those that their digest promises
  BadManifest    a stage's manifest is missing, unreadable, or names files outside the run folder
  Abandoned      told to leave while the server does not answer: the lease will run out by itself
  Stopped        the attempt is to end before its stage has started
  WorkDirInUse   another worker holds the same work folder
"""

from enum import StrEnum


class StopReason(StrEnum):
    """Why a worker ends a stage; the text goes into the attempt's message."""

    CANCEL = "the run was cancelled"
    DRAIN = "the worker was told to stop"
    LEASE_END = "the server was away for longer than the lease"


class WorkerError(Exception):
    """Base of the worker's errors."""


class LeaseLost(WorkerError):  # noqa: N818 - the protocol's word for it
    pass


class Unreachable(WorkerError):  # noqa: N818
    pass


class Rejected(WorkerError):  # noqa: N818
    def __init__(self, status: int, code: str, detail: str, *, offset: int | None = None) -> None:
        super().__init__(f"the server refused it: {status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.offset = offset
        """Where a resumable upload has to go on (only with code `upload_offset`)."""


class BadDownload(WorkerError):  # noqa: N818
    pass


class BadManifest(WorkerError):  # noqa: N818
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Abandoned(WorkerError):  # noqa: N818
    pass


class Stopped(WorkerError):  # noqa: N818
    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class WorkDirInUse(WorkerError):  # noqa: N818
    pass
