"""Preflight rules about the corpus and its tokenizer."""

from typing import Final

from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.preflight_rules import (
    Condition,
    Measured,
    Rule,
    Subject,
    above,
    below,
    equal,
    not_measured,
)
from picochat_contract.stages import StageName

LONG: Final = Condition.LONG


def _readiness(s: Subject) -> Measured:
    corpus = s.facts.corpus
    return Measured(value=corpus.readiness, message=f"corpus {corpus.readiness}: {corpus.readiness_summary}")


def _documents(s: Subject) -> Measured:
    count = s.facts.corpus.num_documents
    return Measured(value=count, message=f"{count:,} documents")


def _duplicates(s: Subject) -> Measured:
    corpus = s.facts.corpus
    removed = f"{corpus.num_exact_removed:,} more were removed"
    if corpus.exact_left is None:
        return Measured(value=None, message=f"nobody looked for equal documents; {removed}")
    return Measured(
        value=corpus.exact_left,
        message=f"{corpus.exact_left:.1%} of the documents equal an earlier one; {removed}",
    )


def _near_duplicates(s: Subject) -> Measured:
    corpus = s.facts.corpus
    removed = f"{corpus.num_near_removed:,} more were removed"
    if corpus.near_left is None:
        return Measured(value=None, message=f"nobody looked for nearly equal documents; {removed}")
    return Measured(
        value=corpus.near_left,
        message=f"{corpus.near_left:.1%} of the documents are nearly an earlier one; {removed}",
    )


def _removed(s: Subject) -> Measured:
    corpus = s.facts.corpus
    removed = corpus.num_exact_removed + corpus.num_near_removed
    share = removed / corpus.num_read if corpus.num_read else 0.0
    return Measured(
        value=share,
        message=f"{removed:,} of {corpus.num_read:,} documents were removed as duplicates ({share:.0%})",
    )


def _duplicate_lines(s: Subject) -> Measured:
    rate = s.facts.corpus.duplicate_line_rate
    said = "nobody counted repeated lines" if rate is None else f"{rate:.1%} of the lines are repeated"
    return Measured(value=rate, message=said)


def _size(s: Subject) -> Measured:
    count = s.facts.corpus.num_characters
    return Measured(
        value=count, message=f"{count:,} characters, about {s.budget.estimated_corpus_tokens:,} tokens"
    )


def _split(s: Subject) -> Measured:
    if s.plan.base.split_mode == "window":
        return Measured(
            value="window", message="validation text shares documents with training (base.split_mode)"
        )
    if s.facts.corpus.num_documents < 2 or not s.facts.corpus.has_documents:
        return Measured(
            value="window", message="one document cannot be held out whole, so its end is held out"
        )
    return Measured(value="document", message="whole documents are held out")


def _boundaries(s: Subject) -> Measured:
    if s.facts.corpus.has_documents:
        return Measured(value="marked", message="every document begins with a marker")
    packed = s.plan.base.dataset_mode == "packed"
    return Measured(
        value="none, packed" if packed else "none",
        message="the corpus is one text without document boundaries",
    )


def _vocab(s: Subject) -> Measured:
    kind = _kind(s.plan.tokenizer)
    if kind != "bpe":
        return Measured(value=None, message=f"a {kind} tokenizer has no vocabulary to choose")
    size = s.plan.tokenizer.vocab_size
    return Measured(value=size, message=f"vocabulary of {size:,}")


def _tokenizer_fit(s: Subject) -> Measured:
    value = s.budget.corpus_bytes_per_token
    return Measured(value=value, message=f"about {value:.1f} bytes per token: {s.budget.corpus_token_note}")


def _explicit_vocab(s: Subject) -> Measured:
    default = TokenizerConfig.model_fields["vocab_size"].default
    tokenizer = s.plan.tokenizer
    left = _kind(tokenizer) == "bpe" and tokenizer.vocab_size == default and s.plan.scale == "custom"
    said = f"vocabulary of {tokenizer.vocab_size:,}, " + ("the default" if left else "chosen")
    return Measured(value="default" if left else "chosen", message=said)


def _tokenizer_type(s: Subject) -> Measured:
    kind = _kind(s.plan.tokenizer)
    return Measured(value=kind, message=f"{kind} tokenizer")


def _kind(tokenizer: TokenizerConfig) -> str:
    return "bpe" if tokenizer.type == "hf_bpe" else tokenizer.type


CORPUS_RULES: Final = (
    Rule(
        id="corpus_readiness",
        measures="status of the corpus report",
        warn=(equal("caution"),),
        block=(equal("blocked"),),
        unit="words",
        fix="read corpus_report.md; it names the limit that is passed over",
        measure=_readiness,
    ),
    Rule(
        id="documents",
        measures="documents in the corpus",
        warn=(below(100, LONG),),
        block=(below(1),),
        fix="give more sources, or sources that are cut into records (.jsonl, .csv, .parquet)",
        measure=_documents,
    ),
    Rule(
        id="duplicate_documents",
        measures="share of the documents in the corpus that equal an earlier one, after cleaning",
        warn=(above(0.03), not_measured(LONG)),
        block=(above(0.10, LONG),),
        unit="share",
        fix="set dataset.cleaning.exact_duplicates to true, and give no source a weight over 1 without need",
        measure=_duplicates,
    ),
    Rule(
        id="near_duplicate_documents",
        measures="share of the documents in the corpus that are nearly an earlier one, after cleaning",
        warn=(above(0.05), not_measured(LONG)),
        block=(above(0.15, LONG),),
        unit="share",
        fix="set dataset.cleaning.near_duplicates to true",
        measure=_near_duplicates,
    ),
    Rule(
        id="removed_documents",
        measures="share of the documents read that were removed as exact or near duplicates",
        warn=(above(0.50),),
        unit="share",
        fix="look at corpus/dropped.parquet: a source is probably given twice, or near_threshold is too low",
        measure=_removed,
    ),
    Rule(
        id="duplicate_lines",
        measures="share of the corpus's lines that repeat an earlier one",
        warn=(above(0.15),),
        block=(above(0.30, LONG),),
        unit="share",
        fix="set dataset.cleaning.boilerplate_documents to remove lines that stand in many documents",
        measure=_duplicate_lines,
    ),
    Rule(
        id="corpus_size",
        measures="characters in the corpus",
        warn=(below(1_000_000, LONG),),
        block=(below(1),),
        fix="give more text: this plan is for about {target_training_tokens} tokens",
        measure=_size,
    ),
    Rule(
        id="document_split",
        measures="how validation text is held out",
        warn=(equal("window"),),
        block=(equal("window", LONG),),
        unit="words",
        fix="set base.split_mode to document, and give at least two documents",
        measure=_split,
        stage=StageName.BASE,
    ),
    Rule(
        id="document_boundaries",
        measures="whether documents are marked in the token stream",
        warn=(equal("none"), equal("none, packed")),
        block=(equal("none, packed", LONG),),
        unit="words",
        fix="build the corpus with the dataset stage, which writes document records",
        measure=_boundaries,
        stage=StageName.BASE,
    ),
    Rule(
        id="bpe_vocab_size",
        measures="size of the bpe vocabulary",
        warn=(below(1_024),),
        block=(below(512, LONG),),
        fix="set tokenizer.vocab_size to 1024 or more",
        measure=_vocab,
    ),
    Rule(
        id="tokenizer_corpus_fit",
        measures="bytes of text per estimated token",
        warn=(below(2.0),),
        unit="number",
        fix="use a bpe tokenizer with a larger vocabulary: a context holds too little text",
        measure=_tokenizer_fit,
    ),
    Rule(
        id="explicit_vocab",
        measures="whether the bpe vocabulary of a plan without a preset was chosen",
        warn=(equal("default", LONG),),
        unit="words",
        fix="choose tokenizer.vocab_size for the corpus: 8192 for 10M parameters and more, 32768 for 1B",
        measure=_explicit_vocab,
    ),
    Rule(
        id="tokenizer_type",
        measures="kind of the tokenizer",
        warn=(equal("char", LONG), equal("byte", LONG)),
        unit="words",
        fix="set tokenizer.type to bpe",
        measure=_tokenizer_type,
    ),
)
