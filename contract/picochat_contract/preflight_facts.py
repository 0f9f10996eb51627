"""What preflight measured: of the corpus, of the rows, of the honesty report, of the machine. No judgement.

Each part names the sha256 of the file that it was measured on, so that a reader can see whether it is still the
same one. The preflight stage fills it in; `judge()` reads nothing else but the config.
"""

from typing import Annotated, Literal

from pydantic import Field

from picochat_contract.canonical import SHA256_HEX
from picochat_contract.config_base import Config

Sha256 = Annotated[str, Field(pattern=SHA256_HEX.pattern)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]


class CorpusFacts(Config):
    """From `corpus_manifest.json`."""

    sha256: Sha256
    num_documents: Count
    num_characters: Count
    num_bytes: Count
    """UTF-8 bytes of the text."""
    readiness: Literal["ready", "caution", "blocked"]
    readiness_summary: str = ""
    num_read: Count
    """Documents before cleaning dropped any."""
    num_exact_removed: Count = 0
    num_near_removed: Count = 0
    num_other_removed: Count = 0
    exact_left: Share | None
    """Share of the documents in the corpus that equal an earlier one; None where nobody looked."""
    near_left: Share | None
    """Share of the documents in the corpus that are nearly an earlier one; None where nobody looked."""
    duplicate_line_rate: Share | None
    has_documents: bool
    """False: the text is not cut into documents."""


class ChatFacts(Config):
    """From `chat_benchmark.jsonl`."""

    sha256: Sha256
    num_rows: Count
    num_invalid: Count = 0
    """Lines that are no rows."""
    num_duplicate_prompts: Count
    categories: dict[str, Count]
    """Rows by category; rows without one are counted under the empty name."""
    skills: dict[str, Count]
    """Rows by skill group: identity, refusal, choice, math, spelling."""
    mean_answer_words: float | None
    mean_open_answer_words: float | None
    """Of rows outside the skill groups: a skill's right answer is a letter, a number or a short sentence. None: no such row."""


class EvalFacts(Config):
    """From `eval_benchmark.jsonl`."""

    sha256: Sha256
    num_items: Count
    num_invalid: Count = 0
    num_without_rules: Count
    """Items that any reply would pass."""
    num_unanswerable: Count
    labels: tuple[str, ...]
    """Different names of split and level, joined."""
    skills: dict[str, Count]


class PreferenceFacts(Config):
    """From `preferences.jsonl`."""

    sha256: Sha256
    num_rows: Count
    num_duplicate_prompts: Count


class HonestyFacts(Config):
    """From `honesty/honesty_report.json`."""

    sha256: Sha256
    status: Literal["ready", "caution", "blocked"]
    corpus_sha256: Sha256
    chat_sha256: Sha256
    eval_sha256: Sha256
    preferences_sha256: Sha256 | None = None
    external_sha256: dict[str, Sha256] = {}
    num_eval: Count
    exact_prompt_leaks: Count
    """Eval prompts that stand whole in an SFT row, wherever in it, after normalisation."""
    preference_prompt_leaks: Count
    external_leaks: Count
    """Items of external benchmarks that stand among SFT or preference rows, after normalisation."""
    corpus_prompt_hits: Count
    """Eval prompts found in the corpus, after normalisation."""
    external_corpus_hits: Count = 0
    """Items of external benchmarks found in the corpus, after normalisation."""
    near_prompt_leaks: Count
    """Eval prompts of which an edited copy stands in an SFT or preference row."""
    duplicate_eval_prompts: Count


class GpuFacts(Config):
    name: str
    memory_bytes: Count
    has_bf16: bool
    capability: Count = 0
    """Major CUDA compute capability: 9 is Hopper; 0 where nobody asked."""


class MachineFacts(Config):
    """The machine that preflight ran on."""

    gpus: tuple[GpuFacts, ...] = ()
    cpu_count: int = Field(ge=1)
    """Cores that this process may use."""
    cpu_has_bf16: bool = False
    """The processor multiplies bfloat16 by itself."""
    ram_bytes: Count
    free_disk_bytes: Count
    """On the file system of the run folder."""
    world_size: int = Field(default=1, ge=1)
    """Ranks that base and SFT will be started with."""
    packages: tuple[str, ...] = ()
    """Optional Python packages that are installed: of those that some setting of a plan needs."""


class PreflightFacts(Config):
    corpus: CorpusFacts
    chat: ChatFacts | None = None
    eval: EvalFacts | None = None
    preferences: PreferenceFacts | None = None
    external: dict[str, Count] = {}
    """Items by external benchmark."""
    external_sha256: dict[str, Sha256] = {}
    """Of `external/<name>.jsonl`, by name."""
    honesty: HonestyFacts | None = None
    """None: there is no honesty report, or it cannot be read."""
    machine: MachineFacts
