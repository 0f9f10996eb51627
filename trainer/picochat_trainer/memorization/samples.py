"""Texts that a base model writes without a prompt. The audit stage looks them up in the corpus."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from picochat_trainer.atomic import write_text
from picochat_trainer.inference.batch import Batch
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams

NUM_SAMPLES: Final = 32
SAMPLE_TOKENS: Final = 128
TEMPERATURE: Final = 1.0
TOP_K: Final = 40
"""Carlini et al. 2021 (arXiv 2012.07805), section 4."""


def write_samples(engine: Engine, path: Path, seed: int) -> int:
    """Write one JSON object {"text"} a line and return the number of tokens that were generated."""
    params = SamplingParams(
        max_new_tokens=min(SAMPLE_TOKENS, engine.context - 1),
        temperature=TEMPERATURE,
        top_k=TOP_K,
        stop_ids=engine.control_ids,
    )
    begin = [engine.tokenizer.bos_id]
    # A seed for each row: with one for all they would be 32 times the same text.
    generations = [
        engine.new_generation(begin, replace(params, seed=(seed * NUM_SAMPLES + row) % 2**63))
        for row in range(NUM_SAMPLES)
    ]
    batch = Batch(engine.model, NUM_SAMPLES)
    for generation in generations:
        batch.admit(generation)
    while batch.busy:
        batch.step()
    completions = [generation.completion() for generation in generations]
    write_text(path, "".join(json.dumps({"text": completion.text}) + "\n" for completion in completions))
    return sum(len(completion.token_ids) for completion in completions)
