"""What a corpus is enough for: a first guess at tokens, context and steps, before a tokenizer is trained."""

from dataclasses import dataclass
from typing import Final

from picochat_trainer.data.facts import CorpusStats

TOKENS_PER_CHARACTER: Final = 0.35
"""Of a BPE tokenizer with 1,024 to 2,047 entries on English text."""
CONTEXTS: Final = (64, 128, 256, 512, 1024, 2048)
EPOCHS: Final = 4
"""Repeating data up to about four times is nearly as good as new data (Muennighoff et al. 2023, arXiv 2305.16264)."""
BATCH_ROWS: Final = 16
MAX_STEPS: Final = 100_000
MIN_WINDOWS: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class Budget:
    estimated_tokens: int
    tokens_per_character: float
    estimated_windows: int
    """Contexts of the suggested size in the corpus."""
    suggested_context_size: int
    """Tokens; 0 where there is no text."""
    suggested_base_steps: int
    """Of BATCH_ROWS rows: EPOCHS times through the corpus; 0 where there is no text."""
    training_command: str
    """Empty where there is no text."""


def suggest_budget(stats: CorpusStats) -> Budget:
    """A context that holds an average document while windows are not few, and steps for four epochs."""
    if not stats.num_documents:
        return Budget(
            estimated_tokens=0,
            tokens_per_character=TOKENS_PER_CHARACTER,
            estimated_windows=0,
            suggested_context_size=0,
            suggested_base_steps=0,
            training_command="",
        )
    tokens = round(stats.num_characters * TOKENS_PER_CHARACTER) + 2 * stats.num_documents
    document_tokens = tokens / stats.num_documents
    fitting = [size for size in CONTEXTS if tokens >= MIN_WINDOWS * size] or [CONTEXTS[0]]
    context = next((size for size in fitting if size >= document_tokens), fitting[-1])
    steps = min(MAX_STEPS, max(1, round(EPOCHS * tokens / (BATCH_ROWS * context))))
    return Budget(
        estimated_tokens=tokens,
        tokens_per_character=TOKENS_PER_CHARACTER,
        estimated_windows=tokens // context,
        suggested_context_size=context,
        suggested_base_steps=steps,
        training_command=(
            "picochat train base --corpus corpus.txt --corpus-manifest corpus_manifest.json --tokenizer tokenizer.json "
            f"--split-mode document --context-size {context} --batch-size {BATCH_ROWS} --grad-accum-steps 1 "
            f"--max-steps {steps} --out-dir base"
        ),
    )
