"""How big a model is, from its config alone: parameters, operations per token, size of the vocabulary.

Counts what `picochat_trainer.model.GPT` builds; a test holds the two together.
"""

from typing import Final

from picochat_contract.configs import ModelConfig
from picochat_contract.data_configs import TokenizerConfig

NUM_SPECIAL_TOKENS: Final = 4
NUM_BYTES: Final = 256
NEWTON_SCHULZ_STEPS: Final = 5
USUAL_CHARACTERS: Final = 96
"""Different characters of an English text; the true number of a char tokenizer is known once it is trained."""


def vocab_size(tokenizer: TokenizerConfig) -> int:
    """Tokens that the trained tokenizer will have; a bpe on little text may end with fewer."""
    if tokenizer.type == "byte":
        return NUM_BYTES + NUM_SPECIAL_TOKENS
    if tokenizer.type == "char":
        return NUM_BYTES + NUM_SPECIAL_TOKENS + USUAL_CHARACTERS
    return tokenizer.vocab_size


def num_parameters(model: ModelConfig, num_tokens: int) -> int:
    """All trained numbers, with a vocabulary of `num_tokens`."""
    tables = 1 if model.tie_embeddings else 2
    return num_body_parameters(model) + tables * num_tokens * model.n_embd


def num_body_parameters(model: ModelConfig) -> int:
    """Without embedding and head."""
    positions = model.sequence_len * model.n_embd if model.position_encoding == "learned" else 0
    norms = 2 * model.n_embd + (2 * model.head_dim if model.qk_norm else 0)
    return model.n_layer * (_block_matrices(model) + norms) + model.n_embd + positions


def num_matrix_parameters(model: ModelConfig) -> int:
    """Matrices of the blocks: what Muon updates."""
    return model.n_layer * _block_matrices(model)


def flops_per_token(model: ModelConfig, num_tokens: int) -> int:
    """Operations to train on one token, by PaLM's count (arXiv 2204.02311, appendix B)."""
    matmul = num_matrix_parameters(model) + num_tokens * model.n_embd
    return 6 * matmul + 12 * model.n_layer * model.n_embd * model.sequence_len


def orthogonalisation_flops(model: ModelConfig, num_ranks: int) -> float:
    """Operations of Muon's five Newton-Schulz steps on the busiest of the ranks that share the matrices out.

    A step on an m x n matrix, m <= n, is X X^T, its square, and a product with X: 4 m^2 n + 2 m^3 operations.
    """
    total = 0.0
    for rows, columns, count in _matrix_shapes(model):
        short, long = sorted((rows, columns))
        busiest = -(-count * model.n_layer // num_ranks)
        total += busiest * NEWTON_SCHULZ_STEPS * (4.0 * short * short * long + 2.0 * short**3)
    return total


def _matrix_shapes(model: ModelConfig) -> list[tuple[int, int, int]]:
    """Rows, columns and number of the matrices of one block."""
    kv_width = model.num_kv_heads * model.head_dim
    return [
        (model.n_embd, model.n_embd, 2),
        (model.n_embd, kv_width, 2),
        (model.n_embd, model.hidden, 3 if model.activation == "swiglu" else 2),
    ]


def _block_matrices(model: ModelConfig) -> int:
    return sum(rows * columns * count for rows, columns, count in _matrix_shapes(model))
