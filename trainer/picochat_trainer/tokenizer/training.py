"""Trains a tokenizer and writes it as Hugging Face `tokenizer.json`.

char  one token per character seen at least `min_freq` times; other characters fall back to their UTF-8 bytes
byte  256 byte tokens
bpe   byte-level BPE with the pre-tokenizer pattern of Qwen2, verbatim: converters know tokenizers by it

All three encode any text and decode to the same bytes. None normalises.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import tokenizers
from picochat_contract.data_configs import TokenizerConfig
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from picochat_trainer.atomic import write_text
from picochat_trainer.tokenizer.chat_template import tokenizer_config
from picochat_trainer.tokenizer.special import SPECIAL_TOKENS

QWEN2_PATTERN: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> tokenizers.Tokenizer:
    """Train on `texts`; equal texts and config give an equal tokenizer."""
    if config.type == "byte":
        tokenizer = _byte_tokenizer()
    elif config.type == "char":
        tokenizer = _char_tokenizer(texts, config.min_freq)
    else:
        tokenizer = _bpe_tokenizer(texts, config)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def save_tokenizer(tokenizer: tokenizers.Tokenizer, json_path: Path, config_path: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    write_text(json_path, tokenizer.to_str(pretty=True) + "\n")
    write_text(config_path, json.dumps(tokenizer_config(), indent=2) + "\n")


def _byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _byte_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=_vocab(_byte_alphabet()), merges=[]))
    tokenizer.pre_tokenizer = _byte_level()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _char_tokenizer(texts: Iterable[str], min_freq: int) -> tokenizers.Tokenizer:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    characters = sorted(character for character, count in counts.items() if count >= min_freq)
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    model = models.BPE(vocab=_vocab([*fallback, *characters]), merges=[], byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _bpe_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, _byte_level()])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_freq,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=_byte_alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _byte_alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _vocab(tokens: list[str]) -> dict[str, int]:
    return {token: id for id, token in enumerate([*SPECIAL_TOKENS, *tokens])}
