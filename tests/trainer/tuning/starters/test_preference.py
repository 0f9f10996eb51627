"""Preference starter: rejected answers are wrong in content, and form alone does not tell them from the chosen ones."""

import random
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from picochat_trainer.data.normalize import words
from picochat_trainer.scoring.fit_items import fit_item
from picochat_trainer.scoring.judgement import Reply, judge
from picochat_trainer.tuning.measures import echoes
from picochat_trainer.tuning.preferences import PreferenceRow
from picochat_trainer.tuning.release_skills import generate_sft
from picochat_trainer.tuning.rows import ChatRow
from picochat_trainer.tuning.skills.question import Side
from picochat_trainer.tuning.starters.balance import FORMS, MAX_IMBALANCE, lead_of
from picochat_trainer.tuning.starters.preference import PreferenceStarter, preference_starter
from picochat_trainer.tuning.starters.rejections import Donors
from picochat_trainer.tuning.starters.sft import sft_rows
from picochat_trainer.tuning.starters.texts import texts_of_side
from support.small_corpus import documents

Score = Callable[[str, str], float]


KINDS = ("corpus", "direct", "scratchpad")


@cache
def rows_of(kind: str) -> list[ChatRow]:
    if kind == "corpus":
        return sft_rows(texts_of_side(documents, Side.SFT), max_items=150, seed=1)
    return generate_sft(250, seed=1, style="direct" if kind == "direct" else "scratchpad")


@cache
def starter_of(kind: str) -> PreferenceStarter:
    return preference_starter(rows_of(kind), seed=1)


def length_words(prompt: str, answer: str) -> float:
    return len(answer.split())


def length_characters(prompt: str, answer: str) -> float:
    return len(answer)


def echo(prompt: str, answer: str) -> float:
    asked, said = set(words(prompt)), words(answer)
    return sum(word in asked for word in said) / max(1, len(said))


def echoed_words(prompt: str, answer: str) -> float:
    return echo(prompt, answer) * len(words(answer))


def accuracy_of_pairs(pairs: Sequence[PreferenceRow], score: Score) -> float:
    """Of the better of `more wins` and `less wins`; a tie is a guess."""
    leads = [score(p.prompt, p.chosen) - score(p.prompt, p.rejected) for p in pairs]
    more = sum(1.0 if lead > 0 else 0.5 if lead == 0 else 0.0 for lead in leads) / len(leads)
    return max(more, 1 - more)


def accuracy_of_threshold(pairs: Sequence[PreferenceRow], score: Score) -> float:
    """Of the best threshold on single answers, in either direction."""
    chosen = [score(p.prompt, p.chosen) for p in pairs]
    rejected = [score(p.prompt, p.rejected) for p in pairs]
    best = 0.5
    for threshold in {*chosen, *rejected}:
        right = sum(s >= threshold for s in chosen) + sum(s < threshold for s in rejected)
        best = max(best, right / (2 * len(pairs)), 1 - right / (2 * len(pairs)))
    return best


def accuracy_of_fit(pairs: Sequence[PreferenceRow]) -> float:
    """Of a logistic regression over lengths and echoes and their products, on the pairs that it was fitted to."""
    scores = (length_words, length_characters, echo, echoed_words)
    leads = np.array([[s(p.prompt, p.chosen) - s(p.prompt, p.rejected) for s in scores] for p in pairs])
    leads /= leads.std(axis=0) + 1e-9
    weights = np.zeros(leads.shape[1])
    for _ in range(500):
        weights += 0.5 * (leads / (1 + np.exp(leads @ weights))[:, None]).mean(axis=0)
    margins = np.round(leads @ weights, 9)
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", [length_words, length_characters, echo, echoed_words])
def test_length_or_echo_does_not_tell_chosen_from_rejected(kind: str, score: Score) -> None:
    pairs = starter_of(kind).rows
    assert len(pairs) >= 0.75 * len(rows_of(kind))
    assert accuracy_of_pairs(pairs, score) <= 0.55 + 1e-9
    assert accuracy_of_threshold(pairs, score) <= 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_and_echoes_together_tell_little(kind: str) -> None:
    assert accuracy_of_fit(starter_of(kind).rows) <= 0.62


@pytest.mark.parametrize("kind", KINDS)
def test_the_classifiers_find_a_starter_that_only_echoes(kind: str) -> None:
    pairs = [PreferenceRow(prompt=r.user, chosen=r.assistant, rejected=r.user) for r in rows_of(kind)]
    assert accuracy_of_pairs(pairs, echo) > 0.8
    assert accuracy_of_fit(pairs) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_rejected_answers_are_judged_wrong(kind: str) -> None:
    by_prompt = {row.user: fit_item(row).model_copy(update={"max_words": None}) for row in rows_of(kind)}
    for pair in starter_of(kind).rows:
        item = by_prompt[pair.prompt]
        assert judge(item, Reply(text=pair.chosen)).passed
        assert not judge(item, Reply(text=pair.rejected)).passed, pair
        assert not echoes(pair.prompt, pair.rejected)


@pytest.mark.parametrize("kind", KINDS)
def test_no_form_leads_in_more_than_a_tenth(kind: str) -> None:
    starter = starter_of(kind)
    leads = [lead_of(pair.prompt, pair.chosen, pair.rejected) for pair in starter.rows]
    for form, name in enumerate(FORMS):
        share = sum(lead[form] for lead in leads) / len(leads)
        assert abs(share) <= MAX_IMBALANCE
        assert starter.leads[name] == pytest.approx(share, abs=1e-4)


def test_several_kinds_of_wrong_answers_come() -> None:
    kinds = {pair.rejection for pair in starter_of("corpus").rows}
    assert kinds >= {"number", "name", "other", "unsupported", "refusal"}


def test_rows_that_always_give_themselves_away_are_left_out() -> None:
    long = [ChatRow(user=f"Question {i}?", assistant="red " * 20 + f"{i}", category="a") for i in range(30)]
    odd = [ChatRow(user=f"Who is {i}?", assistant="I do not know.", answerable=False) for i in range(30)]
    starter = preference_starter([*long, *odd], seed=1)
    assert starter.num_unbalanced > 0
    assert max(map(abs, starter.leads.values())) <= 0.1


def test_conversations_and_rows_without_a_wrong_answer_are_counted() -> None:
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    alone = ChatRow(user="What?", assistant="yes")
    starter = preference_starter([ChatRow.model_validate({"messages": turns}), alone], seed=1)
    assert (starter.rows, starter.num_conversations, starter.num_without_rejection) == ((), 1, 1)


def test_an_answer_that_shares_a_name_may_be_right_and_is_not_rejected() -> None:
    rows = [
        ChatRow(user="Who keeps the lamp?", assistant="Today the keeper is Ines.", category="x"),
        ChatRow(user="Who writes the book?", assistant="In the book writes Ines.", category="x"),
        ChatRow(user="What colour is the boat?", assistant="Its colour is a green.", category="x"),
    ]
    found = Donors(rows).rejections(rows[0], random.Random(1))
    assert [r.text for r in found if r.kind == "other"] == ["Its colour is a green."]


def test_categories_groups_and_order_are_kept() -> None:
    rows = rows_of("corpus")
    pairs = preference_starter(rows, max_items=20, seed=1).rows
    prompts = [row.user for row in rows]
    places = [prompts.index(pair.prompt) for pair in pairs]
    assert len(pairs) <= 20 and places == sorted(places)
    assert all(
        (pair.category, pair.group) == (rows[i].category, rows[i].group)
        for pair, i in zip(pairs, places, strict=True)
    )


def test_equal_seeds_give_equal_pairs() -> None:
    assert preference_starter(rows_of("corpus"), seed=1) == starter_of("corpus")
