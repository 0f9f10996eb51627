"""SFT and eval starters: grounded in the texts, apart from each other, judged by rules that can fail."""

from collections.abc import Sequence

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.contamination import Item, ItemIndex, scan
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.scoring.judgement import Reply, judge
from picochat_trainer.scoring.matching import holds, is_refusal
from picochat_trainer.tuning.rows import ChatRow, EvalItem
from picochat_trainer.tuning.skills.question import Side
from picochat_trainer.tuning.starters.evaluation import eval_items
from picochat_trainer.tuning.starters.facts import GAP, QUOTE_WORDS
from picochat_trainer.tuning.starters.sft import sft_rows
from picochat_trainer.tuning.starters.texts import SourceText, texts_of_side

Corpus = Sequence[tuple[str, str]]


def texts(corpus: Corpus, side: Side) -> list[SourceText]:
    return texts_of_side(lambda: iter(corpus), side)


def sft(corpus: Corpus, max_items: int = 80, seed: int = 1) -> list[ChatRow]:
    return sft_rows(texts(corpus, Side.SFT), max_items=max_items, seed=seed)


def evaluation(corpus: Corpus, max_items: int = 80, seed: int = 1) -> list[EvalItem]:
    return eval_items(texts(corpus, Side.EVAL), max_items=max_items, seed=seed)


def test_sft_and_eval_never_ask_about_one_document(corpus: Corpus) -> None:
    for seed in range(3):
        trained = {(row.group or "").split("-")[0] for row in sft(corpus, 500, seed)}
        asked = {(item.group or "").split("-")[0] for item in evaluation(corpus, 500, seed + 7)}
        assert len(trained) == len(asked) == 20
        assert trained.isdisjoint(asked)


def test_a_copy_of_a_document_is_on_its_side(corpus: Corpus) -> None:
    doubled = [*corpus, *((f"copy/{name}", text.upper()) for name, text in corpus)]
    assert [t.id for t in texts(doubled, Side.EVAL)] == [t.id for t in texts(corpus, Side.EVAL)]


def test_a_single_text_is_cut_into_sections() -> None:
    paragraph = (
        "The keeper number {} climbs the ninety steps of the tower each evening and lights the lamp. " * 4
    )
    whole = [("corpus.txt", "\n\n".join(paragraph.format(*[number] * 4) for number in range(6)))]
    sides = [texts(whole, side) for side in Side]
    assert [len(side) for side in sides] == [3, 3]
    assert {t.id for t in sides[0]}.isdisjoint(t.id for t in sides[1])
    assert all(t.title.startswith("corpus, part ") for side in sides for t in side)


@pytest.mark.parametrize("corpus", [[], [("a.txt", "One short text.")]])
def test_too_little_text_says_what_is_needed(corpus: Corpus) -> None:
    with pytest.raises(ContractError, match="needs two different documents") as caught:
        texts(corpus, Side.SFT)
    assert caught.value.code is Code.CORPUS_TOO_SMALL


def test_sft_rows_are_grounded_or_refuse(corpus: Corpus) -> None:
    by_group = {f"{text.id}-sft": text for text in texts(corpus, Side.SFT)}
    rows = sft(corpus)
    for row in rows:
        text = by_group[row.group or ""]
        if row.answerable:
            assert (row.category or "").startswith("domain_")
            assert holds(text.text, row.assistant)
        else:
            assert (row.category or "").startswith("refusal_")
            assert is_refusal(row.assistant)
            assert row.skill == "refusal"
    assert {row.category for row in rows} == {"domain_gap", "domain_about", "refusal_absent"}
    assert 0.2 <= sum(not row.answerable for row in rows) / len(rows) <= 0.3


def test_what_is_refused_is_not_in_the_document(corpus: Corpus) -> None:
    by_group = {f"{t.id}-{side}": t.text for side in Side for t in texts(corpus, side)}
    names = ("Oslo", "Lima", "Ines", "Tomas", "Hugo", "Kyoto", "Perth")
    refused = [row for row in (*sft(corpus), *evaluation(corpus)) if not row.answerable]
    asked = [(row, name) for row in refused for name in names if holds(row.user, name)]
    assert len(asked) > 5
    assert not any(holds(by_group[row.group or ""], name) for row, name in asked)


def test_the_eval_covers_every_kind(corpus: Corpus) -> None:
    items = evaluation(corpus, 60)
    assert {item.split for item in items} == {"heldout", "adversarial", "memorization", "smoke"}
    assert any(item.require_corpus_support for item in items)
    assert any(not item.answerable for item in items)
    assert any(item.must_not_include for item in items)


def test_right_replies_pass_and_constant_ones_do_not(corpus: Corpus) -> None:
    items = [item.model_copy(update={"require_corpus_support": False}) for item in evaluation(corpus)]
    for item in items:
        named = item.must_include[0]
        right = named if item.answerable else f"I do not know. The text does not mention {named}."
        assert judge(item, Reply(text=right)).passed, item.user
    for constant in ("I do not know.", "The text does not say.", "Oslo"):
        passed = sum(judge(item, Reply(text=constant)).passed for item in items)
        assert passed <= 0.15 * len(items)


def test_the_answer_is_not_in_the_prompt(corpus: Corpus) -> None:
    for item in evaluation(corpus):
        if item.split != "smoke" and item.answerable:
            assert not any(holds(item.user, phrase) for phrase in item.must_include)
    for row in sft(corpus):
        if row.category == "domain_gap":
            assert GAP in row.user and not holds(row.user, row.assistant)


def test_prompts_are_different_and_lines_count(corpus: Corpus) -> None:
    for rows in (sft(corpus), evaluation(corpus)):
        assert len({normal_form(row.user) for row in rows}) == len(rows)
        assert [row.line for row in rows] == list(range(1, len(rows) + 1))


def test_no_eval_item_counts_as_a_copy_of_corpus_or_sft_rows(corpus: Corpus) -> None:
    items = evaluation(corpus, 300)
    index = ItemIndex(
        [Item(key=str(item.line), prompt=item.prompt_text, answer=item.answer_text) for item in items],
        near_threshold=0.7,
    )
    rows = [(str(row.line), f"{row.prompt_text}\n{row.answer_text}") for row in sft(corpus, 300)]
    assert QUOTE_WORDS < 8
    assert scan(index, corpus).findings == ()
    assert scan(index, rows).findings == ()


def test_equal_seeds_give_equal_rows(corpus: Corpus) -> None:
    assert sft(corpus) == sft(corpus)
    assert evaluation(corpus) == evaluation(corpus)
    assert evaluation(corpus) != evaluation(corpus, seed=2)
