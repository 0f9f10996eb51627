"""Shapes of the management API about data: registered datasets, and what honesty and preflight found in a run."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from picochat_contract.api import PLAIN, Wire
from picochat_contract.canonical import SHA256_HEX, digest_of
from picochat_contract.data_configs import DATASET_NAME, ArtifactSource, LeftOutSource, ReadOptions
from picochat_contract.errors import Code, SpecError
from picochat_contract.preflight import PreflightReport, PreflightStatus

MAX_DATASET_FILES = 10_000
DatasetRole = Literal["corpus", "chat", "eval", "preferences", "external"]
DatasetKind = Literal["pack", "corpus", "chat", "eval", "preferences", "external"]
ONE_FILE_ROLES: tuple[DatasetRole, ...] = ("chat", "eval", "preferences")


class DatasetFileIn(ReadOptions):
    """An uploaded file, what it is for and how it is read. `label` of an external file is its benchmark's name."""

    role: DatasetRole
    path: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    """File name with its extensions, which say how it is read."""
    digest: str = Field(pattern=SHA256_HEX.pattern)
    group: str | None = Field(default=None, max_length=200)
    """Files of one group are one source: limits count over all of them."""

    def source(self) -> ArtifactSource:
        """The file as a run spec names it."""
        options = self.model_dump(exclude={"role", "path", "digest", "size_bytes"})
        return ArtifactSource(type="artifact", name=self.path, digest=self.digest, **options)


class DatasetFileOut(DatasetFileIn):
    size_bytes: int


class DatasetIn(Wire):
    name: str = Field(pattern=DATASET_NAME)
    description: str = Field(default="", max_length=2_000, pattern=PLAIN)
    license: str | None = Field(default=None, max_length=200, pattern=PLAIN)
    """Of every file that names none of its own."""
    files: list[DatasetFileIn] = Field(min_length=1, max_length=MAX_DATASET_FILES)
    left_out: list[LeftOutSource] = Field(default=[], max_length=MAX_DATASET_FILES)
    """What was not uploaded; the corpus's report lists it."""

    @property
    def kind(self) -> DatasetKind:
        """The one role of its files; `pack` where there are several."""
        roles = {file.role for file in self.files}
        return roles.pop() if len(roles) == 1 else "pack"

    @property
    def digest(self) -> str:
        """sha256 over licence and files in their order: equal means the same data."""
        content = self.model_dump(
            mode="json", include={"license", "files", "left_out"}, exclude_defaults=True
        )
        return digest_of(content)

    @model_validator(mode="after")
    def _each_row_file_has_one_meaning(self) -> Self:
        for role in ONE_FILE_ROLES:
            named = [file.path for file in self.files if file.role == role]
            if len(named) > 1:
                raise SpecError(
                    Code.INVALID_VALUE,
                    f"a dataset has at most one {role} file, got {', '.join(named)}; push the others under names "
                    "of their own",
                    param="files",
                )
        labels = [file.label for file in self.files if file.role == "external"]
        if None in labels or len(set(labels)) < len(labels):
            raise SpecError(
                Code.INVALID_VALUE,
                "each external file needs a label of its own, the name of its benchmark",
                param="files",
            )
        return self


class DatasetSummary(Wire):
    id: str
    name: str
    version: int
    digest: str
    kind: DatasetKind
    description: str
    license: str | None
    num_files: int
    size_bytes: int
    created_at: datetime
    created_by: str
    """Id of the key that pushed it."""


class DatasetOut(DatasetSummary):
    files: list[DatasetFileOut]
    left_out: list[LeftOutSource]


class PreflightOut(Wire):
    """The server's own judgement of a run's stored preflight facts."""

    run: str
    report: PreflightReport
    decided_at: datetime
    sha256: str | None
    """Of the stored preflight.json; None where the run has none, which blocks."""
    advice_status: PreflightStatus | None
    """What the preflight stage itself said; the server's report is the one that counts."""


class HonestyOut(Wire):
    """The stored honesty report, and the audit of what was really trained on once there is one."""

    run: str
    sha256: str
    report: dict[str, Any]
    audit_sha256: str | None
    audit: dict[str, Any] | None
