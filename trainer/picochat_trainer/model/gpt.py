"""Decoder-only GPT: RoPE or learned positions, RMSNorm or LayerNorm, SwiGLU, GELU or squared ReLU, grouped queries, QK
norm, sequential or parallel residual, no biases.

With sequential residual, RoPE, RMSNorm and SwiGLU it is exactly Hugging Face's Qwen3ForCausalLM (LlamaForCausalLM without
QK norm), down to the parameter names (`stock.py`); the other forms have no stock class.

B rows, T tokens, N = B*T, D model dim, H query heads, K key/value heads, h head dim, V vocab
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from picochat_contract.configs import AttentionBackend, ModelConfig
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from picochat_trainer.model.attention import attend
from picochat_trainer.model.cache import KVCache
from picochat_trainer.model.context import Context, cached_context, training_context
from picochat_trainer.model.kernels import (
    AttentionFacts,
    Kernel,
    activate,
    cached_kernel,
    capability,
    evaluation_kernel,
    has_fa3,
    select_kernel,
)
from picochat_trainer.model.loss import IGNORE_INDEX as IGNORE_INDEX
from picochat_trainer.model.loss import HeadLoss, chunk_size, soft_cap, token_losses
from picochat_trainer.model.rope import rope_tables, rotate

INIT_STD = 0.02
_RESIDUAL = ("o_proj.weight", "down_proj.weight")  # what is added to the residual stream


class RMSNorm(nn.Module):
    """Zhang and Sennrich 2019, arXiv 1910.07467; in float32 whatever comes in, like Hugging Face."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x.float(), self.weight.shape, eps=self.eps)
        return normed.to(x.dtype) * self.weight.to(x.dtype)


class LayerNorm(nn.Module):
    """Ba et al. 2016, arXiv 1607.06450, without bias; in float32 whatever comes in."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x.float(), self.weight.shape, eps=self.eps)
        return normed.to(x.dtype) * self.weight.to(x.dtype)


def new_norm(config: ModelConfig, dim: int) -> nn.Module:
    return (RMSNorm if config.norm_type == "rmsnorm" else LayerNorm)(dim, config.norm_eps)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.n_kv_head = config.num_kv_heads
        self.head_dim = config.head_dim
        self.dropout = config.dropout
        self.q_proj = nn.Linear(config.n_embd, self.n_head * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.n_embd, self.n_kv_head * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.n_embd, self.n_kv_head * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.n_head * self.head_dim, config.n_embd, bias=False)
        self.q_norm = new_norm(config, self.head_dim) if config.qk_norm else None
        self.k_norm = new_norm(config, self.head_dim) if config.qk_norm else None

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BTHh = self.q_proj(x_BTD).view(B, T, self.n_head, self.head_dim)
        k_BTKh = self.k_proj(x_BTD).view(B, T, self.n_kv_head, self.head_dim)
        v_BKTh = self.v_proj(x_BTD).view(B, T, self.n_kv_head, self.head_dim).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q_BTHh, k_BTKh = self.q_norm(q_BTHh), self.k_norm(k_BTKh)
        q_BHTh, k_BKTh = q_BTHh.transpose(1, 2), k_BTKh.transpose(1, 2)
        if context.cos is not None and context.sin is not None:
            cos, sin = context.cos.to(q_BHTh.dtype), context.sin.to(q_BHTh.dtype)
            q_BHTh, k_BKTh = rotate(q_BHTh, cos, sin), rotate(k_BKTh, cos, sin)
        if context.cache is not None:
            k_BKTh, v_BKTh = context.cache.write(self.layer, context.positions, k_BKTh, v_BKTh, context.span)
        if context.kernel.repeats_kv and self.n_head != self.n_kv_head:
            group = self.n_head // self.n_kv_head
            k_BKTh, v_BKTh = k_BKTh.repeat_interleave(group, 1), v_BKTh.repeat_interleave(group, 1)
        dropout = self.dropout if self.training else 0.0
        out_BHTh = attend(q_BHTh, k_BKTh, v_BKTh, context.mask, dropout)
        return self.o_proj(out_BHTh.transpose(1, 2).reshape(B, T, -1))


class SwiGLU(nn.Module):
    """Shazeer 2020, arXiv 2002.05202."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.n_embd, config.hidden, bias=False)
        self.up_proj = nn.Linear(config.n_embd, config.hidden, bias=False)
        self.down_proj = nn.Linear(config.hidden, config.n_embd, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class MLP(nn.Module):
    """Without a gate: GELU in GPT-2's tanh form (arXiv 1606.08415), or squared ReLU (So et al. 2021, arXiv 2109.08668)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.is_gelu = config.activation == "gelu"
        self.up_proj = nn.Linear(config.n_embd, config.hidden, bias=False)
        self.down_proj = nn.Linear(config.hidden, config.n_embd, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        up = self.up_proj(x_BTD)
        return self.down_proj(F.gelu(up, approximate="tanh") if self.is_gelu else F.relu(up).square())


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.parallel_residual = config.parallel_residual
        self.input_layernorm = new_norm(config, config.n_embd)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = new_norm(config, config.n_embd)
        self.mlp = SwiGLU(config) if config.activation == "swiglu" else MLP(config)
        self.dropout = nn.Dropout(config.dropout)
        self.body: BlockBody = block_body  # or the same compiled

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        return self.body(self, x_BTD, context)


def block_body(block: Block, x_BTD: Tensor, context: Context) -> Tensor:
    attended_BTD = x_BTD + block.dropout(block.self_attn(block.input_layernorm(x_BTD), context))
    mlp_input_BTD = x_BTD if block.parallel_residual else attended_BTD
    return attended_BTD + block.dropout(block.mlp(block.post_attention_layernorm(mlp_input_BTD)))


BlockBody = Callable[[Block, Tensor, Context], Tensor]


class Decoder(nn.Module):
    """Everything but the head; a module of its own for Hugging Face's `model.` prefix."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, config.n_embd)
        learned = config.position_encoding == "learned"
        self.embed_positions = nn.Embedding(config.sequence_len, config.n_embd) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = new_norm(config, config.n_embd)

    def forward(self, tokens_BT: Tensor, context: Context, checkpointing: bool = False) -> Tensor:
        """`checkpointing` keeps of each block only its input, and computes it again for the gradient."""
        x_BTD = self.embedded(tokens_BT, context)
        for block in self.layers:
            x_BTD = self._recomputed(block, x_BTD, context) if checkpointing else block(x_BTD, context)
        return self.norm(x_BTD)

    def embedded(self, tokens_BT: Tensor, context: Context) -> Tensor:
        """What the first block takes."""
        x_BTD = self.embed_tokens(tokens_BT)
        if self.embed_positions is not None:
            x_BTD = x_BTD + self.embed_positions(context.positions)
        return self.dropout(x_BTD)

    def _recomputed(self, block: nn.Module, x_BTD: Tensor, context: Context) -> Tensor:
        """Chen et al. 2016, arXiv 1604.06174. The second pass draws the same dropout and takes the same kernel."""
        return checkpoint(
            block,
            x_BTD,
            context,
            use_reentrant=False,
            preserve_rng_state=self.dropout.p > 0,
            context_fn=partial(_checkpoint_contexts, context.kernel),
        )


def _checkpoint_contexts(
    kernel: Kernel,
) -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    return nullcontext(), kernel.scope()


class GPT(nn.Module):
    """Weights are not meaningful before `init_weights` or `load_state_dict`; training takes `first_weights.build_model`.

    Training sets how it computes by four attributes, which are no part of the model: none changes what it learns but
    `document_token`, which ends attention at the beginnings of documents.
    """

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.attn_backend: AttentionBackend = "auto"
        self.document_token: int | None = None
        """The token that begins a document: attention does not look beyond it. Not with a cache."""
        self.gradient_checkpointing = False
        self.loss_chunk_tokens: int | None = None
        """Tokens whose logits are held at once by `loss` and `token_losses`; None chooses (`loss.chunk_size`)."""
        self.head_loss = HeadLoss()
        self.model = Decoder(config, vocab_size)
        self.lm_head = None if config.tie_embeddings else nn.Linear(config.n_embd, vocab_size, bias=False)
        if config.position_encoding == "rope":
            cos_Th, sin_Th = rope_tables(config.head_dim, config.sequence_len, config.rope_theta)
            self.register_buffer("rope_cos", cos_Th, persistent=False)
            self.register_buffer("rope_sin", sin_Th, persistent=False)

    def forward(self, tokens_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return logits_BTV. With a cache, tokens go behind each row's length; `cache.advance` keeps them."""
        return self.logits(self.hidden(tokens_BT, cache))

    def hidden(self, tokens_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return the normed last states, x_BTD, for callers that need only some positions' logits."""
        num_tokens = tokens_BT.shape[1]
        if num_tokens > self.config.sequence_len:
            raise ValueError(f"{num_tokens} tokens do not fit the context of {self.config.sequence_len}")
        context = self._context(tokens_BT, cache)
        checkpointing = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        with context.kernel.scope():
            return self.model(tokens_BT, context, checkpointing)

    def logits(self, x: Tensor) -> Tensor:
        """Apply the head and its soft-cap to states (..., D)."""
        return soft_cap(F.linear(x, self.head_weight), self.config.logit_softcap)

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy over targets that are not IGNORE_INDEX, nats, float32."""
        return self._mean_loss(self.hidden(tokens_BT), targets_BT)

    def first_block_loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The loss behind the first block, by the same functions as `loss` but past the blocks' hooks.

        For trying the functions out: where weights are sharded, no rank waits for another in it.
        """
        context = self._context(tokens_BT, None)
        block = self.model.layers[0]
        assert isinstance(block, Block)
        with context.kernel.scope():
            x_BTD = block.body(block, self.model.embedded(tokens_BT, context), context)
        return self._mean_loss(self.model.norm(x_BTD), targets_BT)

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Cross-entropy losses_BT, nats, float32; 0 where the target is IGNORE_INDEX."""
        x_ND = self.hidden(tokens_BT).flatten(0, 1)
        cap, chunk = self.config.logit_softcap, self._chunk(x_ND)
        losses_N = token_losses(x_ND, self.head_weight, targets_BT.flatten(), cap, chunk)
        return losses_N.view_as(targets_BT)

    @property
    def head_weight(self) -> Tensor:
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Fill all weights from `seed` alone: the same on every device, whatever was drawn before."""
        for parameter, value in zip(self.parameters(), self.initial_weights(seed), strict=True):
            parameter.copy_(value)

    def initial_weights(self, seed: int) -> Iterator[Tensor]:
        """The weights for `seed` in the order of the parameters, whole and on the CPU; each is drawn when it is asked for.

        Only names and shapes of the parameters are looked at, so that they may be on no device yet, or in shards.
        """
        generator = torch.Generator("cpu").manual_seed(seed)
        residual_std = INIT_STD
        if self.config.scaled_residual_init:  # GPT-2: the sum of 2 n_layer branches keeps its size
            residual_std /= math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            std = residual_std if name.endswith(_RESIDUAL) else INIT_STD
            if parameter.ndim == 1:
                yield torch.ones(parameter.shape, device="cpu")
            else:
                yield torch.normal(0.0, std, parameter.shape, generator=generator, device="cpu")

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self) -> int:
        """Training FLOP per token by PaLM's count (arXiv 2204.02311, appendix B), attention not halved."""
        return 6 * self._multiplied_parameters() + self._attention_flops()

    def flops_per_token_causal(self) -> int:
        """The same with half of attention: what a kernel has to compute that skips masked scores."""
        return 6 * self._multiplied_parameters() + self._attention_flops() // 2

    def _multiplied_parameters(self) -> int:
        """Of the matrices; the tables of tokens and positions are looked up, but a tied one is also the head."""
        matmul = sum(parameter.numel() for parameter in self.parameters() if parameter.ndim == 2)
        if self.lm_head is not None:
            matmul -= self.model.embed_tokens.weight.numel()
        if self.model.embed_positions is not None:
            matmul -= self.model.embed_positions.weight.numel()
        return matmul

    def _attention_flops(self) -> int:
        c = self.config
        return 12 * c.n_layer * c.n_head * c.head_dim * c.sequence_len

    def _mean_loss(self, x_BTD: Tensor, targets_BT: Tensor) -> Tensor:
        x_ND = x_BTD.flatten(0, 1)
        cap, chunk = self.config.logit_softcap, self._chunk(x_ND)
        return self.head_loss(x_ND, self.head_weight, targets_BT.flatten(), cap, chunk)

    def _chunk(self, x_ND: Tensor) -> int:
        return chunk_size(len(x_ND), self.vocab_size, x_ND.device.type, self.loss_chunk_tokens)

    def _context(self, tokens_BT: Tensor, cache: KVCache | None) -> Context:
        device = tokens_BT.device
        if cache is None:
            context = training_context(tokens_BT, self._kernel(device), self.document_token)
        else:
            context = cached_context(tokens_BT.shape[1], cached_kernel(capability(device)), cache, device)
        if self.config.position_encoding == "rope":
            self._set_rope(context, tokens_BT.shape[1])
        return context

    def _set_rope(self, context: Context, num_tokens: int) -> None:
        if context.cache is None:  # RoPE sees only distances, so positions need not restart with a document
            context.cos, context.sin = self.rope_cos[:num_tokens], self.rope_sin[:num_tokens]
        else:
            context.cos = self.rope_cos[context.positions][:, None]
            context.sin = self.rope_sin[context.positions][:, None]

    def _kernel(self, device: torch.device) -> Kernel:
        """The kernel of passes without a cache."""
        facts = attention_facts(self, device)
        return select_kernel(self.attn_backend, facts) if self.training else evaluation_kernel(facts)


def attention_facts(model: GPT, device: torch.device) -> AttentionFacts:
    """What decides about the kernel of `model` now, under the autocast of the caller."""
    autocast = torch.is_autocast_enabled(device.type)
    weight = model.model.embed_tokens.weight
    return AttentionFacts(
        device=device.type,
        dtype=torch.get_autocast_dtype(device.type) if autocast else weight.dtype,
        head_dim=model.config.head_dim,
        documents=model.document_token is not None,
        dropout=model.config.dropout > 0,
        capability=capability(device) if device.type == "cuda" else 0,
        has_fa3=device.type == "cuda" and has_fa3(),
    )


def choose_backend(model: GPT, backend: AttentionBackend, device: torch.device | str) -> None:
    """Have training compute attention with `backend`; raises `device_unavailable` or `invalid_value`.

    Called under the autocast of training, with `document_token` set.
    """
    select_kernel(backend, attention_facts(model, torch.device(device)))
    activate(backend)
    model.attn_backend = backend
