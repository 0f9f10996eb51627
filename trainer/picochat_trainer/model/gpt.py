"""Decoder-only GPT: RoPE, RMSNorm, SwiGLU, grouped queries, QK norm, no biases.

With sequential residual it is exactly Hugging Face's Qwen3ForCausalLM (LlamaForCausalLM without QK norm), down to
the parameter names; the parallel residual has no stock class.

B rows, T tokens, D model dim, H query heads, K key/value heads, h head dim, V vocab
"""

import math

import torch
import torch.nn.functional as F
from picochat_contract.configs import ModelConfig
from torch import Tensor, nn

from picochat_trainer.model.attention import attend
from picochat_trainer.model.cache import KVCache
from picochat_trainer.model.rope import rope_tables, rotate

IGNORE_INDEX = -100  # targets that carry no loss
INIT_STD = 0.02


class RMSNorm(nn.Module):
    """Zhang and Sennrich 2019, arXiv 1910.07467; in float32 whatever comes in, like Hugging Face."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x.float(), self.weight.shape, eps=self.eps)
        return normed.to(x.dtype) * self.weight.to(x.dtype)


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
        self.q_norm = RMSNorm(self.head_dim, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.norm_eps) if config.qk_norm else None

    def forward(self, x_BTD: Tensor, context: "Context") -> Tensor:
        B, T, _ = x_BTD.shape
        q_BTHh = self.q_proj(x_BTD).view(B, T, self.n_head, self.head_dim)
        k_BTKh = self.k_proj(x_BTD).view(B, T, self.n_kv_head, self.head_dim)
        v_BKTh = self.v_proj(x_BTD).view(B, T, self.n_kv_head, self.head_dim).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q_BTHh, k_BTKh = self.q_norm(q_BTHh), self.k_norm(k_BTKh)
        cos, sin = context.cos.to(q_BTHh.dtype), context.sin.to(q_BTHh.dtype)
        q_BHTh = rotate(q_BTHh.transpose(1, 2), cos, sin)
        k_BKTh = rotate(k_BTKh.transpose(1, 2), cos, sin)
        if context.cache is not None:
            assert context.positions_BT is not None
            k_BKTh, v_BKTh = context.cache.write(
                self.layer, context.positions_BT, k_BKTh, v_BKTh, context.span
            )
        dropout = self.dropout if self.training else 0.0
        out_BHTh = attend(q_BHTh, k_BKTh, v_BKTh, context.mask_BTS, dropout)
        return self.o_proj(out_BHTh.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """SwiGLU: Shazeer 2020, arXiv 2002.05202."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.n_embd, config.hidden, bias=False)
        self.up_proj = nn.Linear(config.n_embd, config.hidden, bias=False)
        self.down_proj = nn.Linear(config.hidden, config.n_embd, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.parallel_residual = config.parallel_residual
        self.input_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, context: "Context") -> Tensor:
        attended_BTD = x_BTD + self.dropout(self.self_attn(self.input_layernorm(x_BTD), context))
        mlp_input_BTD = x_BTD if self.parallel_residual else attended_BTD
        return attended_BTD + self.dropout(self.mlp(self.post_attention_layernorm(mlp_input_BTD)))


class Context:
    """What all layers of one forward pass share: positions, RoPE tables, mask, cache."""

    def __init__(self, cos_Th: Tensor, sin_Th: Tensor, num_tokens: int, cache: KVCache | None) -> None:
        self.cache = cache
        self.positions_BT: Tensor | None = None
        self.mask_BTS: Tensor | None = None
        self.span = num_tokens
        if cache is None:
            self.cos, self.sin = cos_Th[:num_tokens], sin_Th[:num_tokens]
            return
        self.span = int(cache.lengths_B.max()) + num_tokens
        if self.span > cache.capacity:
            raise ValueError(f"the cache has {cache.capacity} positions, this pass needs {self.span}")
        lengths_B = cache.lengths_B.to(cos_Th.device)
        self.positions_BT = lengths_B[:, None] + torch.arange(num_tokens, device=cos_Th.device)
        self.cos = cos_Th[self.positions_BT][:, None]  # B1Th
        self.sin = sin_Th[self.positions_BT][:, None]
        keys_S = torch.arange(self.span, device=cos_Th.device)
        self.mask_BTS = keys_S <= self.positions_BT[:, :, None]


class Decoder(nn.Module):
    """Everything but the head; a module of its own for Hugging Face's `model.` prefix."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd, config.norm_eps)

    def forward(self, tokens_BT: Tensor, context: Context) -> Tensor:
        x_BTD = self.dropout(self.embed_tokens(tokens_BT))
        for block in self.layers:
            x_BTD = block(x_BTD, context)
        return self.norm(x_BTD)


class GPT(nn.Module):
    """Weights are not meaningful before `init_weights` or `load_state_dict`."""

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.model = Decoder(config, vocab_size)
        self.lm_head = None if config.tie_embeddings else nn.Linear(config.n_embd, vocab_size, bias=False)
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
        return self.model(tokens_BT, Context(self.rope_cos, self.rope_sin, num_tokens, cache))

    def logits(self, x: Tensor) -> Tensor:
        """Apply the head to states (..., D)."""
        return F.linear(x, self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight)

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy over targets that are not IGNORE_INDEX, nats, float32."""
        logits_NV = self(tokens_BT).flatten(0, 1).float()
        return F.cross_entropy(logits_NV, targets_BT.flatten(), ignore_index=IGNORE_INDEX)

    def token_losses(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Cross-entropy losses_BT, nats, float32; 0 where the target is IGNORE_INDEX."""
        logits_NV = self(tokens_BT).flatten(0, 1).float()
        losses_N = F.cross_entropy(
            logits_NV, targets_BT.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
        )
        return losses_N.view_as(targets_BT)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Fill all weights from `seed` alone: the same on every device, whatever was drawn before."""
        generator = torch.Generator("cpu").manual_seed(seed)
        residual_std = INIT_STD
        if self.config.scaled_residual_init:  # GPT-2: the sum of 2 n_layer branches keeps its size
            residual_std /= math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            std = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else INIT_STD
            draw = torch.normal(0.0, std, parameter.shape, generator=generator, device="cpu")
            parameter.copy_(draw)

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self) -> int:
        """Training FLOP per token by PaLM's count (arXiv 2204.02311, appendix B), attention not halved."""
        matmul = sum(parameter.numel() for parameter in self.parameters() if parameter.ndim == 2)
        if self.lm_head is not None:  # the embedding is a lookup; tied, it counts once, as the head
            matmul -= self.model.embed_tokens.weight.numel()
        c = self.config
        return 6 * matmul + 12 * c.n_layer * c.n_head * c.head_dim * c.sequence_len
