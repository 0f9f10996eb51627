"""The sets of texts that honesty compares, in one shape: documents to look in, items to look for.

A set's `documents` give (place, text); a place is `set:line` for rows and `document_id path` for the corpus, so that a
finding can name both ends without keeping the corpus in memory.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from picochat_trainer.data.contamination import Item
from picochat_trainer.data.corpus_store import CorpusDocuments
from picochat_trainer.tuning.preferences import PreferenceRow
from picochat_trainer.tuning.rows import ChatRow, EvalItem

CORPUS = "corpus"
SFT = "sft"
PREFERENCES = "preferences"
EVAL = "eval"
EXTERNAL = "external"
GENERATED = "generated"


@dataclass(frozen=True, kw_only=True)
class TextItem:
    """One thing to look for, with where it stands."""

    key: str
    """`set:line`, or `set/file:line` where a set has several files."""
    prompt: str
    answer: str | None
    line: int

    @property
    def item(self) -> Item:
        # What many rows of one file share is a template of that file, not of the others.
        file = self.key.rpartition(":")[0]
        return Item(key=self.key, prompt=self.prompt, answer=self.answer, group=file)

    @property
    def text(self) -> str:
        return self.prompt if self.answer is None else f"{self.prompt}\n{self.answer}"


@dataclass(frozen=True, kw_only=True)
class TextSet:
    """One side of a comparison."""

    name: str
    items: tuple[TextItem, ...] = ()
    """Empty for the corpus, which is only looked in."""
    documents: Callable[[], Iterator[tuple[str, str]]]

    @classmethod
    def of_items(cls, name: str, items: Sequence[TextItem]) -> "TextSet":
        """A set whose documents are its items."""
        kept = tuple(items)
        return cls(name=name, items=kept, documents=lambda: ((item.key, item.text) for item in kept))


def corpus_texts(store: CorpusDocuments, *, without: Container[str] = frozenset()) -> TextSet:
    """The corpus, except for the documents whose ids are in `without`."""

    def documents() -> Iterator[tuple[str, str]]:
        for document in store.documents():
            if document.document_id not in without:
                yield f"{document.document_id} {document.path}", document.text

    return TextSet(name=CORPUS, documents=documents)


def sft_texts(rows: Sequence[ChatRow]) -> TextSet:
    return TextSet.of_items(
        SFT,
        [
            TextItem(key=f"{SFT}:{row.line}", prompt=row.prompt_text, answer=row.answer_text, line=row.line)
            for row in rows
        ],
    )


def sft_prompts(rows: Sequence[ChatRow]) -> list[TextItem]:
    """Everything that a user says in a row, each by itself: any of it may be an eval prompt."""
    return [
        TextItem(key=f"{SFT}:{row.line}", prompt=text, answer=None, line=row.line)
        for row in rows
        for text in row.user_texts
    ]


def preference_texts(rows: Sequence[PreferenceRow]) -> TextSet:
    """Looked for with the chosen answer; looked in with both answers."""
    items = tuple(
        TextItem(key=f"{PREFERENCES}:{row.line}", prompt=row.prompt, answer=row.chosen, line=row.line)
        for row in rows
    )
    texts = [(item.key, f"{item.text}\n{row.rejected}") for item, row in zip(items, rows, strict=True)]
    return TextSet(name=PREFERENCES, items=items, documents=lambda: iter(texts))


def eval_texts(items: Sequence[EvalItem]) -> TextSet:
    return TextSet.of_items(EVAL, [_eval_item(item, EVAL) for item in items])


def eval_prompts(items: Sequence[EvalItem]) -> list[TextItem]:
    """The whole prompts, options included: two items that differ only in them are not the same prompt."""
    return [
        TextItem(key=f"{EVAL}:{item.line}", prompt=item.user, answer=None, line=item.line) for item in items
    ]


def external_texts(benchmarks: Mapping[str, Sequence[EvalItem]]) -> TextSet:
    return TextSet.of_items(
        EXTERNAL,
        [_eval_item(item, f"{EXTERNAL}/{name}") for name, items in benchmarks.items() for item in items],
    )


def generated_texts(texts: Mapping[str, str]) -> TextSet:
    """`texts` maps a name, such as `eval:12`, to what the model wrote."""
    return TextSet.of_items(
        GENERATED,
        [
            TextItem(key=f"{GENERATED}/{name}", prompt=text, answer=None, line=number)
            for number, (name, text) in enumerate(texts.items(), start=1)
            if text.strip()
        ],
    )


def _eval_item(item: EvalItem, name: str) -> TextItem:
    return TextItem(key=f"{name}:{item.line}", prompt=item.prompt_text, answer=_answer(item), line=item.line)


def _answer(item: EvalItem) -> str | None:
    """What a right reply says, as far as the item tells. A refusal gives nothing away: every set has the same ones."""
    if not item.answerable:
        return None
    said = item.answer_text or " ".join(item.required_phrases)
    return said or None
