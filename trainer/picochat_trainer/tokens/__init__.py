"""The token store: a corpus as raw token ids in memory-mapped shards, with where each document begins. No torch."""

from picochat_trainer.tokens.store import TokenStore
from picochat_trainer.tokens.writer import build_token_store

__all__ = ["TokenStore", "build_token_store"]
