"""Generated rows: right, unique, disjoint from the eval by every key, and not to be won by any fixed answer."""

import re
from collections import Counter
from itertools import product

import pytest
from picochat_contract.data_configs import HonestyConfig
from picochat_contract.errors import Code, SpecError
from picochat_contract.policies import POLICIES, SKILL_GROUPS
from picochat_trainer.data.contamination import Item, ItemIndex, scan
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.honesty.matrix import compare_all
from picochat_trainer.honesty.texts import eval_texts, sft_texts
from picochat_trainer.scoring.fit_items import fit_item
from picochat_trainer.scoring.judgement import Reply, judge
from picochat_trainer.scoring.matching import holds, is_refusal
from picochat_trainer.tuning.release_skills import SHARES, AnswerStyle, generate_eval, generate_sft
from picochat_trainer.tuning.rows import ChatRow, EvalItem, Row
from picochat_trainer.tuning.skills import choice, identity, refusal, spelling
from picochat_trainer.tuning.skills.question import Side


@pytest.fixture(scope="module")
def sft() -> list[ChatRow]:
    return generate_sft(4_000, seed=42)


@pytest.fixture(scope="module")
def items() -> list[EvalItem]:
    return generate_eval(1_000, seed=42)


def of_skill(rows: list[ChatRow] | list[EvalItem], skill: str) -> list[Row]:
    return [row for row in rows if row.skill == skill]


def constant_reply(item: EvalItem, text: str) -> Reply:
    """A model that always says `text` and always prefers that label."""
    if not item.is_choice:
        return Reply(text=text)
    return Reply(text=text, label_log_probs={label: float(label == text) for label in item.choice_labels})


def test_equal_seeds_give_equal_rows_and_others_do_not() -> None:
    assert generate_sft(80, seed=1) == generate_sft(80, seed=1)
    assert generate_eval(80, seed=1) != generate_eval(80, seed=2)


@pytest.mark.parametrize(("num_sft", "num_eval"), [(32, 16), (64, 32), (1200, 200)])
def test_all_five_skills_are_in_both_files_in_their_shares(num_sft: int, num_eval: int) -> None:
    for rows in (generate_sft(num_sft, seed=9), generate_eval(num_eval, seed=9)):
        counts = Counter(row.skill for row in rows)
        assert {str(name): count / len(rows) for name, count in counts.items()} == pytest.approx(
            SHARES, abs=1 / len(rows)
        )


def test_prompts_are_unique_within_and_across(sft: list[ChatRow], items: list[EvalItem]) -> None:
    keys = [normal_form(row.user) for row in (*sft, *items)]
    assert len(set(keys)) == len(keys) == 5_000


def test_any_of_the_skills_can_be_left_out_and_seen_prompts_are_not_made_again() -> None:
    seen: set[str] = set()
    first = generate_sft(60, seed=7, shares={"math": 0.5, "choice": 0.5}, seen=seen)
    assert Counter(row.skill for row in first) == {"math": 30, "choice": 30}
    second = generate_sft(60, seed=7, shares={"choice": 1.0}, seen=seen)
    keys = [normal_form(row.user) for row in (*first, *second)]
    assert set(keys) == seen
    assert len(seen) == 120


@pytest.mark.parametrize("style", ["direct", "scratchpad"])
def test_the_contamination_engine_finds_no_eval_item_in_the_sft_rows(style: AnswerStyle) -> None:
    sets = (
        sft_texts(generate_sft(2_000, seed=5, style=style)),
        eval_texts(generate_eval(600, seed=5, style=style)),
    )
    [pair] = compare_all(sets, HonestyConfig(), workers=1)
    assert pair.num_places == 2_000
    assert [item.text for item in pair.contaminated] == []


def identity_prompts(topic: identity.Topic, side: Side, name: str) -> list[str]:
    frames = product(identity.OPENERS[side], topic.templates[side], identity.CLOSERS[side])
    return [opener.format(name=name) + template + closer for opener, template, closer in frames]


@pytest.mark.parametrize("topic", identity.TOPICS, ids=lambda topic: topic.name)
def test_no_identity_prompt_is_nearly_one_of_the_other_side(topic: identity.Topic) -> None:
    """Each alone: among many like it, an index takes their common words for no evidence."""
    practised = [(prompt, f"{prompt}\n{topic.answer}") for prompt in identity_prompts(topic, Side.SFT, "Ada")]
    for prompt in identity_prompts(topic, Side.EVAL, "Kurt"):
        index = ItemIndex([Item(key=prompt, prompt=prompt, answer=topic.answer)], near_threshold=0.75)
        assert scan(index, iter(practised)).findings == ()


def test_letters_are_balanced_in_each_category() -> None:
    items = generate_eval(96, seed=11, shares={"choice": 1.0})
    counts = Counter((item.category, item.correct_choice) for item in items)
    assert set(counts.values()) == {6}


@pytest.mark.slow
def test_twenty_thousand_rows_and_two_thousand_items_can_be_made() -> None:
    keys = {normal_form(row.user) for row in (*generate_sft(20_000, seed=3), *generate_eval(2_000, seed=3))}
    assert len(keys) == 22_000


def test_more_rows_than_there_are_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"ask for fewer \(dataset\.eval_rows") as caught:
        generate_eval(500_000, seed=3)
    assert caught.value.code is Code.INVALID_VALUE


def test_no_group_is_on_both_sides(sft: list[ChatRow], items: list[EvalItem]) -> None:
    assert not {row.group for row in sft} & {item.group for item in items}
    assert all(row.group for row in (*sft, *items))


def number_pairs(rows: list[Row]) -> set[tuple[int, int]]:
    """Unordered addends or factors; the addends of a difference are what is taken away and what is left."""
    pairs = set()
    for row in rows:
        first, second = (int(number) for number in re.findall(r"\d+", row.user))
        if "sub" in str(row.category):
            high, low = max(first, second), min(first, second)
            first, second = low, high - low
        pairs.add((min(first, second), max(first, second)))
    return pairs


def test_no_number_pair_is_on_both_sides_in_any_order(sft: list[ChatRow], items: list[EvalItem]) -> None:
    train, test = number_pairs(of_skill(sft, "math")), number_pairs(of_skill(items, "math"))
    assert len(train) > 300
    assert len(test) > 100
    assert not train & test


def test_a_working_never_shows_an_eval_pair(items: list[EvalItem]) -> None:
    test = number_pairs(of_skill(items, "math"))
    shown = set()
    for row in generate_sft(3_000, seed=42, style="scratchpad"):
        for a, sign, b, result in re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", row.assistant):
            left, right = (int(b), int(result)) if sign == "-" else (int(a), int(b))
            shown.add((min(left, right), max(left, right)))
    assert len(shown) > 300
    assert not shown & test


def test_groups_share_no_number_pair(sft: list[ChatRow]) -> None:
    by_group: dict[str, list[Row]] = {}
    for row in of_skill(sft, "math"):
        by_group.setdefault(str(row.group), []).append(row)
    pairs = [pair for rows in by_group.values() for pair in number_pairs(rows)]
    assert len(by_group) >= 10
    assert len(pairs) == len(set(pairs))


def spelled_words(rows: list[Row]) -> dict[str, str]:
    """Word to group: it is the one word of a prompt that no template has."""
    known = {
        word
        for templates in spelling.TEMPLATES.values()
        for of_side in templates.values()
        for template in of_side
        for word in normal_form(template.replace("{word}", "")).split()
    }
    return {word: str(row.group) for row in rows for word in set(normal_form(row.user).split()) - known}


def test_no_word_is_on_both_sides_or_in_two_groups(sft: list[ChatRow], items: list[EvalItem]) -> None:
    train, test = spelled_words(of_skill(sft, "spelling")), spelled_words(of_skill(items, "spelling"))
    assert (len(train), len(test)) == (len(of_skill(sft, "spelling")), len(of_skill(items, "spelling")))
    assert not train.keys() & test.keys()
    assert not {word[::-1] for word in train} & test.keys()


def test_no_fact_is_on_both_sides() -> None:
    num_facts = {side: sum(len(relation.facts[side]) for relation in choice.RELATIONS) for side in Side}
    assert num_facts[Side.SFT] >= 120
    assert num_facts[Side.EVAL] >= 75
    for relation in choice.RELATIONS:
        train, test = relation.facts[Side.SFT], relation.facts[Side.EVAL]
        assert all(len(set(of_side.values())) == len(of_side) for of_side in (train, test)), relation.name
        assert not set(train) & set(test), relation.name
        assert not set(train.values()) & set(test.values()), relation.name
        assert min(len(train), len(test)) >= 4, relation.name


def test_no_template_is_on_both_sides() -> None:
    tables: list[dict[Side, tuple[str, ...]]] = [
        *(topic.templates for topic in identity.TOPICS),
        *(relation.templates for relation in choice.RELATIONS),
        *spelling.TEMPLATES.values(),
        refusal.LIVE_TEMPLATES,
        refusal.LIVE_SUBJECTS,
        *(note.things for note in refusal.NOTES),
        *(note.values for note in refusal.NOTES),
        {side: tuple(f"{a}{b}" for a, b in refusal.NOTES[0].templates[side]) for side in Side},
    ]
    for table in tables:
        assert not set(table[Side.SFT]) & set(table[Side.EVAL])


@pytest.mark.parametrize("skill", SKILL_GROUPS)
def test_no_constant_answer_reaches_the_gate(sft: list[ChatRow], skill: str) -> None:
    mine = generate_eval(500, seed=42, shares={skill: 1.0})
    common = Counter(row.assistant for row in sft if row.skill == skill).most_common(20)
    likely = Counter(item.correct_choice or item.reference or "" for item in mine).most_common(10)
    replies = {reply for reply, _ in [*common, *likely]}
    replies |= {"Picochat", "I do not know.", " ".join(topic.answer for topic in identity.TOPICS)}
    best = max(
        sum(judge(item, constant_reply(item, reply)).passed for item in mine) / len(mine) for reply in replies
    )
    # A fixed letter is a blind guess among four.
    assert best < (0.27 if skill == "choice" else 0.15)
    assert best < POLICIES["skill_release"].min_eval_groups[skill]


def test_the_bare_name_passes_no_identity_item(items: list[EvalItem]) -> None:
    mine = [item for item in items if item.skill == "identity"]
    assert not any(
        judge(item, Reply(text=text)).passed for item in mine for text in ("Picochat", "Picochat.")
    )


def test_a_refusal_must_name_what_is_not_known(items: list[EvalItem]) -> None:
    unanswerable = [item for item in items if not item.answerable]
    assert unanswerable
    for item in unanswerable:
        assert all(holds(item.user, named) for named in item.required_phrases)
        assert item.required_phrases
        assert not judge(item, Reply(text="I do not know. I do not have that information.")).passed


def test_the_right_answers_pass_everything(items: list[EvalItem]) -> None:
    for item in items:
        right = item.correct_choice or item.reference or ""
        judgement = judge(item, constant_reply(item, right))
        assert judgement.passed, (item.user, judgement.failures)


@pytest.mark.parametrize("style", ["direct", "scratchpad"])
def test_rows_pass_their_own_fit_rules(style: str) -> None:
    for row in generate_sft(400, seed=6, style="scratchpad" if style == "scratchpad" else "direct"):
        judgement = judge(fit_item(row), Reply(text=row.assistant))
        assert judgement.passed, (row.user, row.assistant, judgement.failures)


def test_right_letters_are_balanced(sft: list[ChatRow], items: list[EvalItem]) -> None:
    for letters in (
        Counter(row.assistant for row in sft if row.skill == "choice"),
        Counter(item.correct_choice for item in items if item.skill == "choice"),
    ):
        assert set(letters) == set(choice.LABELS)
        assert max(letters.values()) - min(letters.values()) <= 0.1 * sum(letters.values()) / 4


def test_letter_counts_are_balanced_over_lengths(items: list[EvalItem]) -> None:
    counts = Counter(item.normalized_answer for item in items if item.category == "bench_spelling_count")
    assert set(counts) == {str(length) for length in spelling.LENGTHS}
    assert max(counts.values()) <= 1.5 * min(counts.values())


def test_half_of_the_refusal_items_are_answerable(items: list[EvalItem]) -> None:
    answerable = [item.answerable for item in items if item.skill == "refusal"]
    assert sum(answerable) / len(answerable) == pytest.approx(0.5, abs=0.02)


def test_no_prompt_gives_its_answer_away(sft: list[ChatRow], items: list[EvalItem]) -> None:
    for item in items:
        if item.answerable:
            wanted = (
                *item.required_phrases,
                *(phrase for group in item.must_include_any for phrase in group),
            )
            assert not any(holds(item.user, phrase) for phrase in wanted)
        assert not any(holds(item.user, other) for other in identity.OTHER_NAMES)
    assert not any(is_refusal(row.user) for row in (*sft, *items))


def test_sums_and_spellings_are_right(sft: list[ChatRow]) -> None:
    for row in of_skill(sft, "math"):
        assert isinstance(row, ChatRow)
        first, second = (int(number) for number in re.findall(r"\d+", row.user))
        results = {first + second, abs(first - second), first * second}
        assert int(row.assistant) in results
    for word, stage, answer in [
        ("tabo", "count", "4"),
        ("tabo", "reverse", "obat"),
        ("tabo", "spaced", "t a b o"),
    ]:
        assert spelling.solve(stage, word) == answer


def test_answers_are_short(sft: list[ChatRow]) -> None:
    assert max(len(row.assistant) for row in sft) <= 60
    assert max(len(row.user) for row in sft) <= 160
