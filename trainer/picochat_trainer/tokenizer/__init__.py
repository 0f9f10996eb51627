"""Tokenizers: training, loading, chat ids. Everything is a Hugging Face `tokenizer.json`."""

from picochat_trainer.tokenizer.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
