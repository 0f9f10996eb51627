"""The GPT and its key/value cache."""

from picochat_trainer.model.cache import KVCache
from picochat_trainer.model.gpt import GPT

__all__ = ["GPT", "KVCache"]
