"""What a scan finds and what it calls it."""

import pytest
from picochat_trainer.data.contamination import (
    MEASURES,
    FindingKind,
    Item,
    ItemIndex,
    Measured,
    ScanResult,
    Variant,
    scan,
)

QUESTION = (
    "Janet's ducks lay sixteen eggs per day. She eats three for breakfast every morning and bakes muffins for her "
    "friends with four. How much does she earn at the market?"
)
OTHER = (
    "The quick brown fox jumps over the lazy dog while nobody in the whole village looks out of a window. "
)


def look_for(item: Item, *texts: str) -> ScanResult:
    return scan(ItemIndex([item]), [(f"doc{number}", text) for number, text in enumerate(texts)])


def prompt_of(result: ScanResult) -> Measured:
    measured = next(iter(result.items.values())).prompt
    assert measured is not None
    return measured


def test_a_verbatim_item_breaks_every_measure_and_its_place_is_named() -> None:
    text = OTHER * 3 + QUESTION + OTHER
    result = look_for(Item("q", QUESTION), OTHER, text)
    assert all(MEASURES[name].hit(prompt_of(result).value(name)) for name in MEASURES)
    (finding,) = result.findings
    assert (finding.item, finding.place, finding.document) == ("q", "doc1", 1)
    assert (finding.kind, finding.measure, finding.value) == (FindingKind.EXACT, "exact", 1.0)
    start, end = finding.text_span
    assert text[start:end] == finding.text == QUESTION.rstrip("?")
    assert QUESTION[slice(*finding.item_span)] == finding.text


@pytest.mark.parametrize(
    "text",
    [
        QUESTION.upper(),
        QUESTION.replace(" ", "\n").replace(".", " --"),
        QUESTION.replace("'", "\u2019").replace(". ", "\u3002 ").replace("?", "\uff1f"),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" for c in QUESTION),
        QUESTION.replace("breakfast", "break\u00adfast").replace("eggs", "\u200beggs"),
    ],
)
def test_case_punctuation_and_unicode_variants_hide_nothing(text: str) -> None:
    measured = prompt_of(look_for(Item("q", QUESTION), OTHER + text + OTHER))
    assert measured.normalised and not measured.exact


def test_verbatim_means_the_signs_at_both_ends_too() -> None:
    item = Item("q", "\u00abWho painted the old wooden bridge in Lisbon?\u00bb")
    assert prompt_of(look_for(item, "x \u00abWho painted the old wooden bridge in Lisbon?\u00bb y")).exact
    assert not prompt_of(look_for(item, "x Who painted the old wooden bridge in Lisbon? y")).exact


def test_the_answer_counts_only_directly_after_the_prompt() -> None:
    item = Item("q", QUESTION, "18 dollars")
    together = look_for(item, f"{QUESTION}\n18 dollars").items["q"].prompt_answer
    apart = look_for(item, f"{QUESTION} Nobody knows: 18 dollars").items["q"].prompt_answer
    assert together is not None and together.exact
    assert apart is not None and not apart.normalised
    assert look_for(Item("q", QUESTION), QUESTION).items["q"].prompt_answer is None


def test_a_finding_of_prompt_and_answer_spans_both() -> None:
    result = look_for(
        Item("q", "Who painted the old bridge in Lisbon?", "Clara"),
        "x Who painted the old bridge in Lisbon?\nClara y",
    )
    assert result.findings[0].variant is Variant.PROMPT_ANSWER
    assert result.findings[0].text == "Who painted the old bridge in Lisbon?\nClara"


@pytest.mark.parametrize(
    "prompt", ["What is 2+2?", "Who painted old bridges?", "\u8c01\u753b\u4e86\u8001\u6865"]
)
def test_a_short_prompt_counts_only_whole_and_between_word_edges(prompt: str) -> None:
    assert prompt_of(look_for(Item("s", prompt), f"{OTHER} {prompt} {OTHER}")).exact
    inside = prompt[:-1] + "x" if prompt.endswith("?") else prompt[:-1]
    assert prompt_of(look_for(Item("s", prompt), f"{OTHER} {inside} {OTHER}")) == Measured()


def test_what_is_2_2_is_not_in_what_is_2_20() -> None:
    assert not prompt_of(
        look_for(Item("s", "What is 2+2?"), "Tell me: what is 2+20? And what is 2-2?")
    ).normalised


@pytest.mark.parametrize("prompt", ["Hi", "Who is it?", "???", "", "3+4=", "a b c d"])
def test_an_item_that_any_text_holds_is_not_searched_for_and_counted(prompt: str) -> None:
    result = scan(ItemIndex([Item("t", prompt), Item("q", QUESTION)]), [("d", f"{prompt} {OTHER} {prompt}")])
    assert result.num_not_searchable == 1
    assert not result.items["t"].searchable and result.items["t"].prompt is None
    assert not result.findings


def test_one_word_in_eight_replaced_is_found_near() -> None:
    tokens = QUESTION.split(" ")
    tokens[3::8] = ["zebra"] * len(tokens[3::8])
    measured = prompt_of(look_for(Item("q", QUESTION), OTHER + " ".join(tokens) + " " + OTHER))
    assert not measured.normalised and MEASURES["near"].threshold <= measured.near < 1


def test_a_short_item_with_one_word_of_eight_replaced_is_found_wherever_it_is() -> None:
    tokens = ["Which", "wooden", "bridge", "did", "Clara", "paint", "near", "Lisbon"]
    for place in range(len(tokens)):
        text = " ".join([*tokens[:place], "zebra", *tokens[place + 1 :]])
        assert prompt_of(look_for(Item("q", " ".join(tokens)), OTHER + text)).near >= 0.75


def test_inserted_and_dropped_words_do_not_hide_an_item() -> None:
    text = QUESTION.replace("three for", "about three of them for").replace(" every morning", "")
    finding = look_for(Item("q", QUESTION), OTHER + text + OTHER).findings[0]
    assert finding.kind is FindingKind.NEAR
    assert finding.text.startswith("Janet") and finding.text.endswith("market")


def test_an_exercise_with_other_numbers_is_another_exercise() -> None:
    item = Item("q", "A train goes 417 km in 12 hours and 58 minutes: how far is it per hour?")
    text = "A train goes 399 km in 17 hours and 21 minutes: how far is it per hour?"
    assert prompt_of(look_for(item, text)).near < MEASURES["near"].threshold


def test_partial_overlap_is_measured_as_published() -> None:
    prompt = " ".join(f"word{number}" for number in range(40))
    shared = " ".join(f"word{number}" for number in range(10, 25))
    result = look_for(Item("q", prompt), f"x {shared} y", f"z {' '.join(prompt.split()[30:39])} z")
    measured = prompt_of(result)
    assert measured.ngram_any_13
    assert measured.palm70_8 == (8 + 2) / 33  # 8-grams of either document
    assert measured.tulu50_8 == 15 / 40  # tokens in one document
    assert measured.longest_match_8 == 15 / 40
    assert [(f.kind, f.measure, f.place) for f in result.findings] == [("overlap", "ngram_any_13", "doc0")]


def test_palm_adds_up_documents_of_which_none_says_much() -> None:
    prompt = " ".join(f"word{number}" for number in range(40))
    parts = [" ".join(prompt.split()[start : start + 12]) for start in range(0, 32, 5)]
    result = look_for(Item("q", prompt), *parts)
    assert prompt_of(result).palm70_8 >= 0.7 > 0.5 > prompt_of(result).tulu50_8
    assert [(f.measure, f.value) for f in result.findings] == [("palm70_8", prompt_of(result).palm70_8)]


TEMPLATE = "Choose the correct answer to the question below and reply with the letter of the right option only. Question:"


def test_a_template_that_many_items_share_is_no_leak() -> None:
    items = [
        Item(str(n), f"{TEMPLATE} which colour has animal{n} in country{n}? A) red B) blue")
        for n in range(40)
    ]
    text = f"{TEMPLATE} who lives there? A) red B) blue"
    result = scan(ItemIndex(items), [("d", f"{OTHER} {text} {OTHER}")])
    assert not result.findings
    alone = scan(ItemIndex(items[:1]), [("d", f"{OTHER} {text} {OTHER}")])
    assert alone.items["0"].prompt is not None and alone.items["0"].prompt.ngram_any_13


@pytest.mark.parametrize("form", ["{0}", "{0} which colour has animal7 in country7? A) red B) blue"])
def test_an_item_with_a_template_is_found_whole_and_without_it(form: str) -> None:
    items = [
        Item(str(n), f"{TEMPLATE} which colour has animal{n} in country{n}? A) red B) blue")
        for n in range(40)
    ]
    text = form.format(items[7].prompt) if form == "{0}" else form.format("")
    result = scan(ItemIndex(items), [("d", f"{OTHER} {text} {OTHER}")])
    assert {finding.item for finding in result.findings} == {"7"}


def test_templates_are_counted_within_a_group() -> None:
    rows = [Item(f"sft{n}", f"{QUESTION} Think of animal{n}.", group="sft") for n in range(30)]
    result = scan(
        ItemIndex([*rows, Item("q", QUESTION, group="eval")]), [("d", QUESTION[:60] + OTHER + QUESTION[60:])]
    )
    assert {finding.item for finding in result.findings} == {"q"}


def test_equal_items_are_found_alike_and_keys_must_differ() -> None:
    result = scan(ItemIndex([Item("a", QUESTION), Item("b", f" {QUESTION}\n")]), [("d", QUESTION)])
    assert [finding.item for finding in result.findings] == ["a", "b"]
    with pytest.raises(ValueError, match="keys"):
        ItemIndex([Item("a", QUESTION), Item("a", OTHER)])


def test_no_gram_spans_two_documents() -> None:
    half = QUESTION.index("She eats")
    assert not look_for(Item("q", "What is 2 + 2 or so?"), "What is 2", "+ 2 or so?").findings
    assert prompt_of(look_for(Item("q", QUESTION), QUESTION[:half], QUESTION[half:])).longest_match_8 < 0.8


def test_an_item_in_many_documents_has_few_findings_and_a_full_count() -> None:
    result = look_for(Item("q", QUESTION), *[QUESTION] * 9)
    assert (len(result.findings), result.findings_omitted, result.items["q"].num_documents) == (5, 4, 9)
    assert [finding.document for finding in result.findings] == [0, 1, 2, 3, 4]


def test_nothing_to_look_for_and_nothing_to_look_in() -> None:
    assert scan(ItemIndex([]), [("d", OTHER)]).num_characters == len(OTHER)
    assert scan(ItemIndex([Item("q", QUESTION)]), []).num_documents == 0
    assert prompt_of(look_for(Item("q", QUESTION), "", " ", "?!")) == Measured()


def test_text_that_repeats_one_word_takes_no_longer_than_other_text() -> None:
    item = Item("q", "ha " * 300 + "that was a good one said the old captain of the northern train")
    result = look_for(item, "ha " * 30_000)
    assert not prompt_of(result).normalised
