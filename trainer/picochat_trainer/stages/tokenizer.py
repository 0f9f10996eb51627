"""Tokenizer: trained on a sample of the corpus, then all of it as token ids. No torch.

Writes tokenizer.json, tokenizer_config.json and the token store tokens/.
"""

from picochat_contract import layout
from picochat_contract.data_configs import TokenizerConfig

from picochat_trainer.context import StageContext
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.sample import sample_texts
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.tokens import build_token_store


def run(context: StageContext, config: TokenizerConfig) -> dict[str, float]:
    corpus = CorpusStore(context.path)
    sample = sample_texts(corpus, config.seed)
    context.events.progress(0, 100, "percent", f"training a {config.type} tokenizer on {sample.describe()}")
    trained = train_tokenizer(config, sample)
    save_tokenizer(trained, context.output(layout.TOKENIZER), context.output(layout.TOKENIZER_CONFIG))
    tokenizer = Tokenizer.load(context.path(layout.TOKENIZER))

    shown = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal shown
        percent = round(10 + 89 * done / total) if total else 50
        if percent > shown:
            shown = percent
            context.events.progress(percent, 100, "percent", f"{done:,} documents encoded")

    built = build_token_store(
        corpus,
        tokenizer,
        context.output(layout.TOKENS_DIR),
        encoder=config.encoder,
        shard_tokens=config.shard_tokens,
        seed=config.seed,
        log=context.events.log,
        progress=progress,
    )
    context.events.log(
        "info",
        f"{tokenizer.vocab_size} tokens in the vocabulary; {built.store.num_documents:,} documents are "
        f"{built.store.num_tokens:,} tokens of {built.store.bytes_per_token:.2f} bytes, by {built.encoder} at "
        f"{built.tokens_per_second:,.0f} tokens/s",
    )
    context.events.progress(100, 100, "percent")
    return {
        "vocab_size": float(tokenizer.vocab_size),
        "bytes_per_token": built.store.bytes_per_token,
        "num_documents": float(built.store.num_documents),
        "num_tokens": float(built.store.num_tokens),
        "tokens_per_second": built.tokens_per_second,
    }
