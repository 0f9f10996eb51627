"""The inference engine: batched generation with a key/value cache, and scoring."""

from picochat_trainer.inference.batch import Completion, StreamPiece
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams

__all__ = ["Completion", "Engine", "SamplingParams", "StreamPiece"]
