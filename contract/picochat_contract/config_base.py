"""Base of all config models, and the numbers that several of them use."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Steps = Annotated[int, Field(ge=1, lt=2**31)]
MAX_ROWS: Final = 2**20
Rows = Annotated[int, Field(ge=1, le=MAX_ROWS)]
"""Also how many times rows are accumulated: with both at their largest a run's tokens are still a float."""


class Config(BaseModel):
    """Base of all configs: immutable and strict about names."""

    model_config = ConfigDict(
        # JSON, and so a fingerprint, has no Infinity and no NaN.
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
