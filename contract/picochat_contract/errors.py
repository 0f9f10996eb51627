"""Errors that cross a process boundary, and the table of their codes.

    ContractError             a value that a user gave is not acceptable
      SpecError               in a RunSpec or a stage config
      TransitionError         a state change that the transition table does not allow

Every error has a stable `code`; HTTP answers carry it in problem JSON (RFC 9457), stage processes in
`error.json`, command lines in their last line. A message says what was expected, what came, what to do.
"""

from enum import StrEnum
from functools import partial


class Code(StrEnum):
    # run specs and stage configs
    UNKNOWN_KEY = "unknown_key"
    INVALID_VALUE = "invalid_value"
    INVALID_SHAPE = "invalid_shape"  # the model's dimensions do not fit together
    NOT_YAML = "not_yaml"
    SOURCE_NOT_UPLOADED = "source_not_uploaded"  # a file path came over HTTP instead of an artifact digest
    CONFIRMATION_REQUIRED = "confirmation_required"  # a run on paid GPUs that nobody has confirmed
    DATASET_UNKNOWN = "dataset_unknown"  # the project has no dataset of this name, version or role
    # inputs of a stage
    CORPUS_MISSING = "corpus_missing"
    FILE_UNREADABLE = "file_unreadable"
    CORPUS_EMPTY = "corpus_empty"
    CORPUS_TOO_SMALL = "corpus_too_small"
    BAD_ROW = "bad_row"  # a JSONL row that cannot be used; the message names the line
    CHECKPOINT_CORRUPT = "checkpoint_corrupt"
    CHECKPOINT_NOT_WRITTEN = "checkpoint_not_written"  # the disk is full, say; the one before it is whole
    FINGERPRINT_MISMATCH = "fingerprint_mismatch"
    DEVICE_UNAVAILABLE = "device_unavailable"
    MISSING_DEPENDENCY = (
        "missing_dependency"  # a file kind whose reader is not installed; the message names the extra
    )
    RANKS_NOT_READY = "ranks_not_ready"  # rank 0 of several does not get ready, so the others ended
    EXISTS = "exists"  # an output is there already and --force was not given
    INPUT_CHANGED = "input_changed"  # an input's sha256 is not the recorded one
    # HTTP
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN_SCOPE = "forbidden_scope"
    CROSS_ORIGIN = "cross_origin"  # a form that was sent from another site's page
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    INVALID_REQUEST = "invalid_request"
    BAD_HOST = "bad_host"
    BAD_ARTIFACT_PATH = "bad_artifact_path"
    BAD_DIGEST = "bad_digest"
    DIGEST_MISMATCH = "digest_mismatch"
    UPLOAD_TOO_LARGE = "upload_too_large"
    UPLOAD_OFFSET = "upload_offset"  # the part does not start where the stored bytes end
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    IDEMPOTENCY_IN_FLIGHT = "idempotency_in_flight"
    LEASE_LOST = "lease_lost"
    ILLEGAL_TRANSITION = "illegal_transition"
    GATE_NOT_READY = "gate_not_ready"
    PREFLIGHT_NOT_READY = "preflight_not_ready"
    HONESTY_NOT_READY = "honesty_not_ready"
    GATE_NOT_PASSED = "gate_not_passed"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_NOT_RELEASED = "model_not_released"
    MODEL_NOT_READY = "model_not_ready"  # the run has no finished checkpoint yet
    MODEL_HOST_UNAVAILABLE = "model_host_unavailable"
    DATABASE_BUSY = "database_busy"
    INTERNAL = "internal"


class ContractError(ValueError):
    """A value from outside is not acceptable; `param` names the key, file or field."""

    def __init__(self, code: Code, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def __reduce__(self) -> tuple[object, ...]:
        """Arguments of `__init__`, so that the error survives the way back from a worker process."""
        return partial(type(self), param=self.param), (self.code, self.message)


class SpecError(ContractError):
    """A RunSpec or a stage config is wrong."""


class TransitionError(ContractError):
    """A state change that the table does not allow."""
