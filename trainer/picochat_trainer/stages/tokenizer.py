"""Tokenizer: trained on corpus.txt; writes tokenizer.json and tokenizer_config.json. No torch."""

from pathlib import Path

from picochat_contract import layout
from picochat_contract.data_configs import TokenizerConfig

from picochat_trainer.context import StageContext
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import read_chunks, save_tokenizer, train_tokenizer

SAMPLE_CHARACTERS = 1_000_000  # read again to measure how well it compresses


def run(context: StageContext, config: TokenizerConfig) -> dict[str, float]:
    corpus = context.path(layout.CORPUS)
    context.events.progress(0, 2, "steps", f"training a {config.type} tokenizer")
    trained = train_tokenizer(config, read_chunks(corpus))
    save_tokenizer(trained, context.output(layout.TOKENIZER), context.output(layout.TOKENIZER_CONFIG))
    context.events.progress(1, 2, "steps", "measuring compression")
    tokenizer = Tokenizer.load(context.path(layout.TOKENIZER))
    metrics = {
        "vocab_size": float(tokenizer.vocab_size),
        "bytes_per_token": bytes_per_token(tokenizer, context.path(layout.CORPUS)),
    }
    context.events.log(
        "info",
        f"{tokenizer.vocab_size} tokens, {metrics['bytes_per_token']:.2f} bytes of the corpus per token",
    )
    context.events.progress(2, 2, "steps")
    return metrics


def bytes_per_token(tokenizer: Tokenizer, corpus: Path) -> float:
    """Compression on the beginning of the corpus."""
    num_bytes = num_tokens = num_characters = 0
    for chunk in read_chunks(corpus):
        num_tokens += len(tokenizer.encode(chunk))
        num_bytes += len(chunk.encode())
        num_characters += len(chunk)
        if num_characters >= SAMPLE_CHARACTERS:
            break
    return num_bytes / num_tokens if num_tokens else 0.0
