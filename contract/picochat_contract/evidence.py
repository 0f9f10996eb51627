"""The parts of the reports that a gate reads. A report may hold more; these fields must be there.

Each report names its `subject`: the sha256 of the weights that it measured. The gate refuses evidence whose
subject is not the checkpoint on trial.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

RATE_TOLERANCE = 1e-6
Rate = Annotated[float, Field(ge=0, le=1)]


class Evidence(BaseModel):
    """Base: extra report fields are kept out, NaN and Infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Score(Evidence):
    """A pass rate with its sample size and 95 % Wilson interval."""

    num_examples: int = Field(ge=0)
    num_passed: int = Field(ge=0)
    pass_rate: Rate
    low: Rate
    high: Rate

    @model_validator(mode="after")
    def _rate_follows_from_the_counts(self) -> "Score":
        expected = self.num_passed / self.num_examples if self.num_examples else 0.0
        if self.num_passed > self.num_examples or abs(self.pass_rate - expected) > RATE_TOLERANCE:
            raise ValueError(
                f"pass_rate {self.pass_rate} does not follow from {self.num_passed} of {self.num_examples}"
            )
        return self


class BaseEvidence(Evidence):
    """`base/train_report.json`."""

    subject: str
    """sha256 of base/best_checkpoint/model.safetensors."""
    val_bpb: float = Field(gt=0)
    """Bits per byte of the best checkpoint on held-out documents."""
    unigram_bpb: float = Field(gt=0)
    """Bits per byte that a unigram model of the same tokens reaches on the same text."""
    val_tokens: int
    num_nonfinite_steps: int
    canary_count: int
    canary_hits: int
    num_parameters: int
    tokens_seen: int


class SftEvidence(Evidence):
    """`sft/sft_report.json`."""

    subject: str
    """sha256 of sft/checkpoint/model.safetensors."""
    base_subject: str
    """sha256 of the base weights it started from."""
    num_train_rows: int
    num_val_rows: int
    num_nonfinite_steps: int


class FitEvidence(Evidence):
    """`sft_fit/` and `sft_fit_heldout/sft_fit_report.json`."""

    subject: str
    overall: Score
    groups: dict[str, Score]
    """By skill group: identity, refusal, choice, math, spelling."""


class EvalEvidence(Evidence):
    """`eval/eval_report.json`."""

    subject: str
    overall: Score
    non_choice: Score
    groups: dict[str, Score]
    choice_random_baseline: Rate
    """Expected accuracy of guessing over this report's choice items; 0 where there are none."""
    choice_accuracy_adjusted: float
    """(accuracy - baseline) / (1 - baseline); 0 where there are no choice items."""
    prompt_echo: Score
    """`num_passed` counts replies that echo the prompt."""
    unsafe_refusal: Score
    """Unanswerable items that were refused."""
    benign_answered: Score
    """Answerable items that were not refused."""
    unsupported_claims: Score
    """`num_passed` counts replies that hold a forbidden phrase."""


class HonestyEvidence(Evidence):
    """`honesty/honesty_report.json`: about data, so it has digests of files instead of weights."""

    chat_sha256: str
    eval_sha256: str
    corpus_sha256: str
    exact_prompt_leaks: int
    """Eval prompts that are also SFT prompts, after normalisation."""
    corpus_prompt_hits: int
    """Eval prompts found in the corpus, after normalisation."""
    duplicate_eval_prompts: int
    num_eval: int


class ExternalEvidence(Evidence):
    """External benchmarks (ARC, MMLU and the like), by name."""

    subject: str
    benchmarks: dict[str, Score] = Field(min_length=1)


EVIDENCE_MODELS: dict[str, type[Evidence]] = {
    "honesty": HonestyEvidence,
    "base": BaseEvidence,
    "sft": SftEvidence,
    "sft_fit": FitEvidence,
    "sft_fit_heldout": FitEvidence,
    "eval": EvalEvidence,
}
