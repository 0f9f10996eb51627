"""The two corpora that the recipes of this project name: ClimbMix and SmolLM-Corpus."""

from typing import Final

CLIMBMIX: Final = "karpathy/climbmix-400b-shuffle"
CLIMBMIX_SHARDS: Final = 6543
"""Files `shard_00000.parquet` and on, of about 65 million tokens each, shuffled as a whole: any first few are a
sample of the corpus."""
CLIMBMIX_LICENSE: Final = "cc-by-nc-4.0"
"""Of nvidia/ClimbMix, from which it was made; used where the card of the import names none."""

SMOLLM: Final = "HuggingFaceTB/smollm-corpus"
SMOLLM_SUBSETS: Final = ("fineweb-edu-dedup", "cosmopedia-v2")
"""The third, python-edu, holds no text but ids of another archive."""
SMOLLM_LICENSE: Final = "odc-by"


def climbmix_files(num_shards: int) -> tuple[str, ...]:
    return tuple(f"shard_{index:05d}.parquet" for index in range(num_shards))
