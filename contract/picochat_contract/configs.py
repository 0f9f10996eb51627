"""Config models of the stages that train and judge. Frozen, keyword-only, unknown keys refused, shapes checked on construction.

Lengths are tokens, sizes are rows unless the name says otherwise; learning rates are per optimizer step.
"""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from picochat_contract.config_base import Config, Rows, Seed, Steps
from picochat_contract.data_configs import DatasetConfig, HonestyConfig, TokenizerConfig
from picochat_contract.errors import Code, SpecError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bf16"]
GateProfile = Literal["none", "research", "first_release", "skill_release"]
AttentionBackend = Literal["auto", "flash", "efficient", "math", "cudnn", "flex", "fa3"]
DistributedStrategy = Literal["ddp", "fsdp"]
LrDecay = Literal["none", "linear", "cosine", "wsd"]
Optimizer = Literal["adamw", "muon"]
BatchSource = Literal["given", "derived", "one_pass"]
MAX_REPEATS = 1_000  # of a canary


class ModelConfig(Config):
    """Shape of the GPT. Names are GPT-2's."""

    n_layer: int = Field(default=4, ge=1, le=200)
    n_head: int = Field(default=2, ge=1, le=1024)
    n_kv_head: int | None = Field(default=None, ge=1)
    """Key/value heads; None means as many as query heads."""
    n_embd: int = Field(default=128, ge=8, le=65_536)
    sequence_len: int = Field(default=256, ge=8, le=131_072)
    """Context window, tokens."""
    mlp_hidden: int | None = Field(default=None, ge=8, le=1 << 20)
    """Hidden width of the MLP; None means 8/3 of n_embd rounded up to a multiple of 64 for swiglu, else 4 n_embd."""
    norm_type: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    position_encoding: Literal["rope", "learned"] = "rope"
    """learned: a table of `sequence_len` vectors added to the embedding, as in GPT-2."""
    activation: Literal["swiglu", "gelu", "relu2"] = "swiglu"
    """Of the MLP; gelu and relu2 have two matrices instead of three."""
    logit_softcap: float = Field(default=0.0, ge=0)
    """Logits become cap x tanh(logits / cap); 0 is off."""
    qk_norm: bool = True
    tie_embeddings: bool = True
    parallel_residual: bool = False
    """True runs attention and MLP side by side; False is a stock Qwen3 block."""
    scaled_residual_init: bool = True
    rope_theta: float = Field(default=10_000.0, gt=0)
    norm_eps: float = Field(default=1e-6, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def num_kv_heads(self) -> int:
        return self.n_kv_head or self.n_head

    @property
    def hidden(self) -> int:
        if self.mlp_hidden is not None:
            return self.mlp_hidden
        return -(-8 * self.n_embd // 3 // 64) * 64 if self.activation == "swiglu" else 4 * self.n_embd

    @property
    def has_stock_class(self) -> bool:
        """True if the weights map one to one to a Hugging Face class: Qwen3ForCausalLM or LlamaForCausalLM."""
        return (
            (self.norm_type, self.position_encoding, self.activation) == ("rmsnorm", "rope", "swiglu")
            and not self.parallel_residual
            and not self.logit_softcap
        )

    @model_validator(mode="after")
    def _shapes_fit(self) -> "ModelConfig":
        if self.n_embd % self.n_head:
            raise SpecError(
                Code.INVALID_SHAPE,
                f"n_embd must be divisible by n_head: {self.n_embd} / {self.n_head} leaves "
                f"{self.n_embd % self.n_head}; try n_embd={-(-self.n_embd // self.n_head) * self.n_head}",
                param="n_embd",
            )
        if self.n_head % self.num_kv_heads:
            raise SpecError(
                Code.INVALID_SHAPE,
                f"n_head must be a multiple of n_kv_head: got {self.n_head} and {self.num_kv_heads}",
                param="n_kv_head",
            )
        if self.head_dim % 2 and self.position_encoding == "rope":
            raise SpecError(
                Code.INVALID_SHAPE,
                f"head_dim = n_embd / n_head must be even for RoPE: got {self.head_dim}",
                param="n_head",
            )
        return self


class OptimSettings(Config):
    """Optimizer, schedule and loop settings that base and SFT share, but for how often a step accumulates."""

    max_steps: Steps
    """Optimizer steps."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Stop after this many minutes of training, with a checkpoint; None means no limit."""
    device_batch_size: Rows
    """Rows per rank and forward pass."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Highest rate of the schedule, before `auto_lr_scaling`; None derives it (`learning_rates.py`)."""
    auto_lr_scaling: bool = False
    """Multiply the rate by sqrt(rows per optimizer step / 8), over all ranks (`learning_rates.py`)."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps over which the rate rises; None derives them (`learning_rates.py`)."""
    lr_decay: LrDecay = "cosine"
    """wsd: constant after the warm-up, then linear decay over the last `decay_fraction` of the steps."""
    decay_fraction: float = Field(default=0.5, gt=0, le=1)
    """Share of the steps in which wsd decays."""
    min_lr_ratio: float = Field(default=0.1, ge=0, le=1)
    weight_decay: float | None = Field(default=0.1, ge=0)
    """On matrices only; norms are never decayed. None derives it (`learning_rates.py`)."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay per step of a running mean of the weights, which is then what is validated and kept; 0 is off."""
    grad_clip: float = Field(default=1.0, ge=0)
    """Maximum global gradient norm; 0 switches clipping off."""
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    eval_every: int = Field(default=50, ge=1)
    """Steps between validations."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between resume checkpoints."""
    keep_every: int = Field(default=0, ge=0)
    """Steps between weights that are kept beside the last and the best ones; 0 keeps none."""
    log_every: int = Field(default=5, ge=1)
    early_stop_patience: int = Field(default=0, ge=0)
    """Validations without improvement before stopping; 0 means never."""
    early_stop_min_delta: float = Field(default=0.0, ge=0)
    precision: Precision = "auto"
    """auto: bf16 where the hardware computes it natively, else float32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto switches it on where the run is long enough to repay it."""
    attn_backend: AttentionBackend = "auto"
    """Kernel of attention; auto takes the fastest that the device and number format allow."""
    gradient_checkpointing: bool = False
    """Compute each block again in the backward pass instead of keeping its activations."""
    loss_chunk_tokens: int | None = Field(default=None, ge=16)
    """Tokens whose logits are held at once; None chooses by vocabulary and device."""
    stop_after_steps: int | None = Field(default=None, ge=1)
    """Stop here with a resume checkpoint, on the schedule of `max_steps`: a dry run; None means no."""
    tensorboard: bool = False
    """Write TensorBoard event files beside the report (needs the extra `monitor`)."""
    seed: Seed = 42

    @field_validator("compile", mode="before")
    @classmethod
    def _of_yaml(cls, value: object) -> object:
        """YAML reads `off` and `on` without quotes as truth values."""
        return ("off", "on")[value] if isinstance(value, bool) else value


class OptimConfig(OptimSettings):
    """The same as a stage gets them."""

    grad_accum_steps: Rows = 1
    """Forward passes per optimizer step."""


class BaseSettings(OptimSettings):
    """Settings of base pretraining, but for how often a step accumulates."""

    model: ModelConfig = ModelConfig()
    max_steps: Steps = 300
    device_batch_size: Rows = 16
    optimizer: Optimizer = "adamw"
    """muon: orthogonalised momentum for the matrices of the blocks, AdamW for the rest, at one learning rate."""
    loss_spike_rollback: bool = False
    """Go back to the last good weights at half the learning rate where the loss jumps."""
    document_mask: bool = False
    """Attention does not look over the beginning of a document."""
    split_mode: Literal["document", "window"] = "document"
    """How validation text is held out; `window` lets it share documents with training and says so."""
    dataset_mode: Literal["memory", "sharded", "packed"] = "memory"
    """How the token store is read: windows of one array in memory, windows of memory-mapped shards, or rows packed
    best-fit that each begin with a document. All three hold whole documents out."""
    canary_count: int = Field(default=1, ge=0, le=1000)
    """Secrets per entry of `canary_repeats`, put into the training text only, to measure memorization."""
    canary_repeats: tuple[int, ...] = (1, 4, 16, 64)
    """How often each secret is inserted. Entries are left out, from the largest, where all canaries together would
    be more than 0.5 % of the training tokens; the first, which is 1, always stays: the gate reads it."""
    sample_tokens: int = Field(default=120, ge=0)
    sample_prompt: str = "The "

    @model_validator(mode="after")
    def _repeats_rise_from_one(self) -> Self:
        repeats = self.canary_repeats
        if repeats[:1] != (1,) or list(repeats) != sorted(set(repeats)) or repeats[-1] > MAX_REPEATS:
            raise SpecError(
                Code.INVALID_VALUE,
                f"canary_repeats must rise from 1 to at most {MAX_REPEATS}, got {list(repeats)}; the default is 1, 4, 16, "
                "64",
                param="canary_repeats",
            )
        return self


class BaseSection(BaseSettings):
    """`base` of a run spec. The tokens of an optimizer step are given one way or the other, or neither, and then derived
    from `max_steps`, unless `max_minutes` ends the training (`batch_size.py`)."""

    grad_accum_steps: Rows | None = None
    """Forward passes per optimizer step."""
    global_batch_tokens: int | None = Field(default=None, ge=1, le=2**60)
    """Tokens per optimizer step over all ranks; a multiple of device_batch_size x sequence_len x ranks."""


class BaseConfig(BaseSettings, OptimConfig):
    """What the base stage gets: the batch is settled."""

    batch_source: BatchSource = "given"
    """Where `grad_accum_steps` comes from; for reports alone."""


class SftConfig(OptimConfig):
    max_steps: Steps = 200
    device_batch_size: Rows = 16
    learning_rate: float | None = Field(default=1e-3, gt=0, le=1)
    weight_decay: float | None = Field(default=0.01, ge=0)
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    sampling: Literal["uniform", "category_sqrt", "category_balanced"] = "category_sqrt"
    train_on: Literal["last", "all"] = "last"
    """Which of a conversation's assistant turns are learned; everything else is context."""
    sample_prompt: str = "What is Picochat?"
    sample_tokens: int = Field(default=80, ge=0)


class FitConfig(Config):
    """Scores the SFT model on its own training rows and on its held-out rows."""

    max_rows: int = Field(default=200, ge=1)
    max_new_tokens: int = Field(default=80, ge=1)
    seed: Seed = 42


class EvalConfig(Config):
    max_new_tokens: int = Field(default=80, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=5)
    seed: Seed = 42


class GateConfig(Config):
    profile: GateProfile = "skill_release"


class ReportConfig(Config):
    title: str | None = None


class Resources(Config):
    """What a stage runs on. Of a fingerprint only the number of ranks is part, since it multiplies the batch."""

    device: Device = "auto"
    nproc_per_node: int = Field(default=1, ge=1, le=64)
    """torchrun processes for base and sft on each machine: one per GPU."""
    nnodes: int = Field(default=1, ge=1, le=512)
    """Machines that run base and sft together; each is given the same command and finds the others by `rdzv_endpoint`."""
    rdzv_endpoint: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+:[0-9]{1,5}$")
    """host:port of torchrun's rendezvous; needed where `nnodes` is over 1."""
    distributed_strategy: DistributedStrategy = "ddp"
    """ddp: every rank has the whole model. fsdp: weights, gradients and optimizer state are shared out (FSDP2)."""
    num_threads: int | None = Field(default=None, ge=1)
    """CPU threads per process; None means all cores shared evenly."""

    @property
    def num_ranks(self) -> int:
        return self.nproc_per_node * self.nnodes

    @model_validator(mode="after")
    def _machines_can_meet(self) -> "Resources":
        if self.nnodes > 1 and self.rdzv_endpoint is None:
            raise SpecError(
                Code.INVALID_VALUE,
                f"nnodes is {self.nnodes} but there is no rdzv_endpoint; give host:port of the first machine, the same on all",
                param="rdzv_endpoint",
            )
        return self


class RunPlan(Config):
    """The rest of the run as preflight sees it; filled in from the run spec."""

    scale: str
    dataset: DatasetConfig
    tokenizer: TokenizerConfig
    base: BaseConfig
    sft: SftConfig
    gate: GateConfig
    resources: Resources
    stages: tuple[str, ...]
    """Names of the stages that will run."""


class PreflightConfig(Config):
    """What stops a run before anything is paid for, and who may let it pass."""

    target_param_data_ratio: float = Field(default=20.0, gt=0)
    """Training tokens per parameter that the run should have."""
    max_hours: float | None = Field(default=None, gt=0)
    """Block a run that is estimated to take longer; None means no limit."""
    allow_leaky_eval: bool = False
    """Go on although an eval prompt is in the training data. The release gate still blocks."""
    allow_unsafe_long_run: bool = False
    """Go on although a check of the plan or of the corpus blocks a long run."""
    allow_default_tuning_data: bool = False
    """Go on with the generated SFT and eval rows although the corpus is an own one."""
    plan: RunPlan | None = None
    """Filled in by `expand()`; not for a spec."""


class AuditConfig(HonestyConfig):
    """Compares the eval with what was really trained on, and what was generated with all of it."""
