"""Compact inference engine: static key/value cache, batched prefill and decode, sampling per row.

`Engine.generate`, `stream` and `score` serve the trainer's own stages and the command line; the HTTP server drives
a `Batch` itself, so that requests join and leave between two tokens.
Not here: paged caches, prefix sharing, CUDA graphs, quantization.

B rows, T tokens, V vocab
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from picochat_contract.configs import Precision
from picochat_contract.errors import Code, ContractError
from picochat_contract.layout import WEIGHTS

from picochat_trainer.inference.batch import Batch, Completion, Generation, StreamPiece
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.model import GPT, KVCache
from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.training.checkpoint import load_weights, open_checkpoint

MAX_SLOTS = 32  # rows per batch; on two cores more rows no longer raise tokens/s


class Engine:
    """A model with its tokenizer. Weights keep the dtype they have; the model is left in eval mode.

    Not for several threads at once.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, device: torch.device | str = "cpu") -> None:
        if tokenizer.vocab_size > model.vocab_size:
            raise ContractError(
                Code.INVALID_VALUE,
                f"tokenizer: expected at most the checkpoint's {model.vocab_size} tokens, got {tokenizer.vocab_size}; "
                "give the tokenizer.json of the run that trained this checkpoint",
                param="tokenizer",
            )
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        # A head that is padded beyond the tokenizer can name tokens without text.
        padding = [b""] * (model.vocab_size - tokenizer.vocab_size)
        self.checkpoint_sha256: str | None = None
        """Digest of the weights file; None for a model that was not loaded from one."""
        self.token_bytes: list[bytes] = [*tokenizer.token_bytes, *padding]

    @classmethod
    def load(
        cls,
        checkpoint_dir: Path,
        tokenizer_json: Path,
        device: torch.device | str = "cpu",
        precision: Precision = "auto",
    ) -> "Engine":
        """Load a checkpoint folder; `auto` is bf16 on CUDA and float32 on the CPU.

        On a CPU with bf16 instructions, bf16 doubled the tokens/s of 100M parameters and slowed down 1M.
        """
        tokenizer = Tokenizer.load(tokenizer_json)
        opened = open_checkpoint(checkpoint_dir)
        config, vocab_size, state = load_weights(opened.directory)
        with torch.device("meta"):
            model = GPT(config, vocab_size)
        try:
            model.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise ContractError(
                Code.CHECKPOINT_CORRUPT,
                f"{checkpoint_dir}: model.safetensors does not fit config.json: {error}; both must come from one run",
                param=str(checkpoint_dir),
            ) from error
        is_bf16 = precision == "bf16" or (precision == "auto" and torch.device(device).type == "cuda")
        dtype = torch.bfloat16 if is_bf16 else torch.float32
        engine = cls(model.to(dtype), tokenizer, device)
        engine.checkpoint_sha256 = opened.metadata.files[WEIGHTS]
        return engine

    @property
    def context(self) -> int:
        """Tokens that prompt and answer share."""
        return self.model.config.sequence_len

    @property
    def control_ids(self) -> frozenset[int]:
        """Tokens that mark structure, not text: an answer ends where one comes."""
        return self.tokenizer.special_ids

    def new_generation(self, prompt_ids: Sequence[int], params: SamplingParams) -> Generation:
        return Generation(prompt_ids, params, self.context, self.token_bytes)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        """Answer every prompt; `on_done(index, completion)` is called as answers are complete."""
        generations = [self.new_generation(prompt, params) for prompt in prompts]
        index_of = {generation: index for index, generation in enumerate(generations)}
        # Longest first: prompts of about one length share a prefill with little padding.
        queue = sorted(generations, key=lambda generation: len(generation.prompt_ids))
        batch = Batch(self.model, min(MAX_SLOTS, len(prompts)) or 1)
        while queue or batch.busy:
            while queue and batch.num_free:
                batch.admit(queue.pop())
            for generation, piece in batch.step():
                if piece.finish_reason is not None and on_done is not None:
                    on_done(index_of[generation], generation.completion())
        return [generation.completion() for generation in generations]

    def stream(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[StreamPiece]:
        """Yield one piece per token; the last one has a finish reason."""
        batch = Batch(self.model, 1)
        batch.admit(self.new_generation(prompt_ids, params))
        while batch.busy:
            for _, piece in batch.step():
                yield piece

    def score(self, prompt_ids: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
        """Sum of log-probabilities of each continuation after the prompt, nats.

        Where prompt and longest continuation exceed the context, the first tokens of the prompt are dropped, the
        same ones for all continuations.
        """
        longest = max((len(continuation) for continuation in continuations), default=0)
        if not prompt_ids or longest >= self.context:
            raise ContractError(
                Code.INVALID_VALUE,
                f"score: expected a prompt of at least one token and continuations under {self.context}, "
                f"got {len(prompt_ids)} and {longest}",
            )
        prompt_ids = prompt_ids[-(self.context - longest) :]
        sums: list[float] = []
        for start in range(0, len(continuations), MAX_SLOTS):
            sums += self._score_rows(prompt_ids, continuations[start : start + MAX_SLOTS])
        return sums

    @torch.inference_mode()
    def _score_rows(self, prompt_ids: Sequence[int], rows: Sequence[Sequence[int]]) -> list[float]:
        """The prompt goes through the model once; its keys and values are then shared by all rows."""
        weight = self.model.model.embed_tokens.weight
        length = len(prompt_ids) + max(len(row) for row in rows)
        cache = KVCache.empty(
            self.model.config, len(rows), device=weight.device, dtype=weight.dtype, length=length
        )
        first = cache.rows(0, 1)
        if len(prompt_ids) > 1:
            self.model.hidden(torch.tensor([prompt_ids[:-1]], device=weight.device), first)
            first.advance(len(prompt_ids) - 1)
            cache.repeat_first()
        width = max(len(row) for row in rows) or 1
        tokens_BT = torch.zeros(len(rows), width, dtype=torch.int64)
        targets_BT = torch.full_like(tokens_BT, IGNORE_INDEX)
        for row, ids in enumerate(rows):
            tokens_BT[row, : len(ids)] = torch.tensor([prompt_ids[-1], *ids][: len(ids)])
            targets_BT[row, : len(ids)] = torch.tensor(ids)
        logits_BTV = self.model(tokens_BT.to(weight.device), cache).float()
        losses_BT = F.cross_entropy(
            logits_BTV.flatten(0, 1),
            targets_BT.to(weight.device).flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="none",
        ).view_as(targets_BT)
        return (-losses_BT.double().sum(dim=1)).tolist()
