"""The parts of the reports that a gate reads. A report may hold more; these fields must be there.

Each report names its `subject`: the sha256 of the weights that it measured. The gate refuses evidence whose
subject is not the checkpoint on trial.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RATE_TOLERANCE = 1e-6
Rate = Annotated[float, Field(ge=0, le=1)]
BitsPerByte = Annotated[float, Field(gt=1e-6, lt=1e6)]
"""Within bounds that keep a ratio of two of them finite."""
Count = Annotated[int, Field(ge=0, lt=2**53)]
"""What every JSON reader can hold exactly; a count below zero would pass any rule that sets a maximum."""
Bits = Annotated[float, Field(ge=0, le=64)]


def above_chance(accuracy: float, baseline: float) -> float:
    """0 is guessing, 1 is perfect; 0 too where guessing is always right."""
    return (accuracy - baseline) / (1 - baseline) if baseline < 1 else 0.0


class Evidence(BaseModel):
    """Base: extra report fields are kept out; NaN, Infinity and numbers in quotes are refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, strict=True)


class Score(Evidence):
    """A pass rate with its sample size and 95 % Wilson interval."""

    num_examples: Count
    num_passed: Count
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
    val_bpb: BitsPerByte
    """Bits per byte of the best checkpoint on held-out documents."""
    val_bpb_stderr: Annotated[float, Field(ge=0, lt=1e6)] | None = None
    """Its standard error; None where it is unknown."""
    unigram_bpb: BitsPerByte
    """Bits per byte that a unigram model of the same tokens reaches on the same text."""
    split_mode: Literal["document", "window"]
    """window: the held-out text is of documents that are also trained on."""
    val_tokens: Count
    num_nonfinite_steps: Count
    canary_count: Count
    """Secrets that were inserted once."""
    canary_hits: Count
    """Those of them that a greedy reply holds."""
    num_parameters: Count
    tokens_seen: Count
    exposure_bits: Bits | None
    """Median exposure (Carlini et al. 2019) of the canaries that were inserted once; None without canaries."""
    control_exposure_bits: Bits | None
    """The same of secrets that were never inserted: what chance gives."""
    extractable: Score
    """Spans that occur once in the training text and that greedy decoding gives back word for word (Carlini et al.
    2023)."""
    extractable_heldout: Score
    """The same of held-out spans: the floor that ordinary prediction reaches."""

    @property
    def bpb_text(self) -> str:
        """Bits per byte with the standard error where it is known: `1.498 +- 0.012`."""
        error = "" if self.val_bpb_stderr is None else f" +- {self.val_bpb_stderr:.3f}"
        return f"{self.val_bpb:.3f}{error}"

    @model_validator(mode="after")
    def _exposure_is_of_canaries(self) -> "BaseEvidence":
        if self.canary_hits > self.canary_count:
            raise ValueError(f"{self.canary_hits} of {self.canary_count} canaries came out")
        measured = self.exposure_bits is not None and self.control_exposure_bits is not None
        if measured != (self.canary_count > 0):
            raise ValueError(
                "exposure_bits and control_exposure_bits are there exactly where canary_count is not 0"
            )
        return self


class SftEvidence(Evidence):
    """`sft/sft_report.json`."""

    subject: str
    """sha256 of sft/checkpoint/model.safetensors."""
    base_subject: str
    """sha256 of the base weights it started from."""
    split_method: Literal["group", "random"]
    """random: rows of one group are on both sides."""
    num_train_rows: Count
    num_val_rows: Count
    num_nonfinite_steps: Count


class FitEvidence(Evidence):
    """`sft_fit/` and `sft_fit_heldout/sft_fit_report.json`."""

    rows: Literal["train", "heldout"]
    """Which SFT rows were asked: a report about trained rows is no evidence about held-out ones."""

    subject: str
    overall: Score
    groups: dict[str, Score]
    """By skill group: identity, refusal, choice, math, spelling."""


class TrainFitEvidence(FitEvidence):
    rows: Literal["train"]


class HeldoutFitEvidence(FitEvidence):
    rows: Literal["heldout"]


class EvalEvidence(Evidence):
    """`eval/eval_report.json`."""

    subject: str
    overall: Score
    clean: Score
    """The items that no contamination measure marks."""
    non_choice: Score
    groups: dict[str, Score]
    choice: Score
    """Choice items whose right label is the likeliest, whatever their skill group."""
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

    @model_validator(mode="after")
    def _adjusted_accuracy_follows_from_the_counts(self) -> "EvalEvidence":
        expected = above_chance(self.choice.pass_rate, self.choice_random_baseline)
        if not self.choice.num_examples:
            expected = 0.0
        if abs(self.choice_accuracy_adjusted - expected) > RATE_TOLERANCE:
            raise ValueError(
                f"choice_accuracy_adjusted {self.choice_accuracy_adjusted} does not follow from "
                f"{self.choice.num_passed} of {self.choice.num_examples} where guessing gives "
                f"{self.choice_random_baseline}"
            )
        return self


class PairEvidence(Evidence):
    """One pair of the contamination matrix."""

    pair: str
    """`reference_vs_target`, such as corpus_vs_eval."""
    num_targets: Count
    """Items of the target that were looked for."""
    risk: Literal["high", "medium", "low", "clean", "not_checked"]
    reason: str | None = None
    """Why it was not checked."""
    num_contaminated: Count
    """Items that at least one published measure marks."""

    @model_validator(mode="after")
    def _counts_fit(self) -> "PairEvidence":
        if self.num_contaminated > self.num_targets:
            raise ValueError(f"{self.num_contaminated} contaminated of {self.num_targets} items")
        if (self.risk == "not_checked") != (self.reason is not None):
            raise ValueError("a pair has a reason exactly where it was not checked")
        return self


class MatrixEvidence(Evidence):
    pairs: list[PairEvidence]


class Compared(Evidence):
    """A report that compares texts: about data, so it has digests of files."""

    corpus_sha256: str
    """Of corpus_manifest.json, which holds the digests of all shards."""
    chat_sha256: str
    eval_sha256: str
    num_eval: Count
    contamination_matrix: MatrixEvidence


class HonestyEvidence(Compared):
    """`honesty/honesty_report.json`: data against data, before anything is trained."""

    exact_prompt_leaks: Count
    """Eval prompts that stand whole in an SFT row, wherever in it, after normalisation."""
    near_prompt_leaks: Count
    """Eval prompts of which an edited copy stands in an SFT or preference row."""
    preference_prompt_leaks: Count
    """Eval prompts that stand whole in a preference row, in its prompt or either answer, after normalisation."""
    corpus_prompt_hits: Count
    """Eval prompts found in the corpus, after normalisation."""
    duplicate_eval_prompts: Count


class AuditEvidence(Compared):
    """`honesty/audit_report.json`: what was really trained on, and what the checkpoint generated."""

    subject: str
    """sha256 of the judged weights: the generated texts are theirs."""
    base_subject: str
    trained_documents: Count
    """Corpus documents on the training side of the split."""
    trained_rows: Count
    """SFT rows that were trained on."""
    trained_prompt_hits: Count
    """Eval prompts found in trained documents or rows, after normalisation."""
    copied: Score
    """`num_passed` counts generated texts that give back a long span of the corpus word for word."""


class PreflightCheckEvidence(Evidence):
    id: str
    status: Literal["pass", "warn", "block"]
    waived_by: str | None = None


class MeasuredFile(Evidence):
    sha256: str


class MeasuredFiles(Evidence):
    """The files that preflight measured; None for rows that were not there."""

    corpus: MeasuredFile
    chat: MeasuredFile | None = None
    eval: MeasuredFile | None = None


class PreflightEvidence(Evidence):
    """`preflight.json`."""

    status: Literal["ready", "warn", "blocked"]
    summary: str
    checks: list[PreflightCheckEvidence] = Field(min_length=1)
    facts: MeasuredFiles


class ExternalEvidence(Evidence):
    """External benchmarks (ARC, MMLU and the like), by name."""

    subject: str
    benchmarks: dict[str, Score] = Field(min_length=1)


EVIDENCE_MODELS: dict[str, type[Evidence]] = {
    "honesty": HonestyEvidence,
    "preflight": PreflightEvidence,
    "base": BaseEvidence,
    "sft": SftEvidence,
    "sft_fit": TrainFitEvidence,
    "sft_fit_heldout": HeldoutFitEvidence,
    "eval": EvalEvidence,
    "audit": AuditEvidence,
}
