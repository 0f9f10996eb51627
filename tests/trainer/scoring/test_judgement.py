"""Each rule has a reply that breaks it alone; an empty reply never passes."""

from typing import Any

import pytest
from picochat_trainer.scoring.analysis import Cluster, analyse, cluster_of
from picochat_trainer.scoring.judgement import Failure, Reply, judge
from picochat_trainer.tuning.rows import EvalItem

CHOICE = {"choice_labels": ["A", "B"], "correct_choice": "B"}

# failure -> (item, reply, cluster)
BROKEN: dict[Failure, tuple[dict[str, Any], Reply, Cluster]] = {
    Failure.EMPTY_REPLY: ({"must_not_include": ["x"]}, Reply(text="  \n"), Cluster.EMPTY),
    Failure.MISSING_PHRASE: ({"must_include": ["red"]}, Reply(text="blue"), Cluster.CONTENT),
    Failure.MISSING_ANY: ({"must_include_any": [["red", "pink"]]}, Reply(text="blue"), Cluster.CONTENT),
    Failure.MISSING_ENTITY: ({"entities": ["Oslo"]}, Reply(text="Rome"), Cluster.CONTENT),
    Failure.FORBIDDEN_PHRASE: ({"must_not_include": ["OpenAI"]}, Reply(text="by openai"), Cluster.FORBIDDEN),
    Failure.PROMPT_ECHO: ({"must_include": ["red"]}, Reply(text="red\nUser: hello"), Cluster.FORMAT),
    Failure.LENGTH: ({"must_include": ["red"], "max_words": 2}, Reply(text="it is red"), Cluster.LENGTH),
    Failure.NO_CORPUS_SUPPORT: (
        {"require_corpus_support": True},
        Reply(text="red", corpus_support=0.2),
        Cluster.CONTENT,
    ),
    Failure.WRONG_ANSWER: (
        {"normalized_answer": "5", "normalized_answer_required": True},
        Reply(text="6"),
        Cluster.CONTENT,
    ),
    Failure.WRONG_CHOICE: (
        CHOICE,
        Reply(text="B", label_log_probs={"A": -1.0, "B": -2.0}),
        Cluster.CHOICE,
    ),
    Failure.NOT_REFUSED: ({"answerable": False}, Reply(text="It is 5."), Cluster.REFUSAL),
    Failure.OVER_REFUSAL: ({"must_include": ["red"]}, Reply(text="I do not know. red"), Cluster.REFUSAL),
    Failure.PROMPT_TOO_LONG: (
        {"must_include": ["red"]},
        Reply(text="red", truncated=True),
        Cluster.PROMPT_TOO_LONG,
    ),
}


def item_of(fields: dict[str, Any]) -> EvalItem:
    return EvalItem.model_validate({"user": "What color is it?", **fields})


@pytest.mark.parametrize("failure", Failure)
def test_each_rule_can_be_broken_alone(failure: Failure) -> None:
    fields, reply, cluster = BROKEN[failure]
    judgement = judge(item_of(fields), reply)
    assert judgement.failures == (failure,)
    assert not judgement.passed
    assert cluster_of(judgement) is cluster


@pytest.mark.parametrize(
    "fields",
    [
        {"must_not_include": ["x"]},
        {"answerable": False},
        CHOICE,
        {"require_corpus_support": True},
    ],
)
def test_an_empty_reply_never_passes(fields: dict[str, Any]) -> None:
    labels = {"A": -2.0, "B": -1.0} if "choice_labels" in fields else None
    judgement = judge(item_of(fields), Reply(text="", label_log_probs=labels))
    assert not judgement.passed
    assert Failure.EMPTY_REPLY in judgement.failures


@pytest.mark.parametrize(
    ("fields", "reply"),
    [
        ({"must_include": ["red"], "min_words": 1, "max_chars": 9}, Reply(text="It is red")),
        ({"answerable": False}, Reply(text="I do not know.")),
        ({"must_include_any": [["red", "pink"], ["is"]]}, Reply(text="It is pink")),
        ({"require_corpus_support": True}, Reply(text="red", corpus_support=0.25)),
        (CHOICE, Reply(text="A", label_log_probs={"A": -2.0, "B": -1.0})),
    ],
)
def test_a_reply_that_keeps_its_rules_passes(fields: dict[str, Any], reply: Reply) -> None:
    assert judge(item_of(fields), reply).passed


def test_a_model_that_cannot_tell_labels_apart_gets_no_choice_right() -> None:
    for correct in "AB":
        item = item_of({"choice_labels": ["A", "B"], "correct_choice": correct})
        judgement = judge(item, Reply(text="A", label_log_probs={"A": -1.0, "B": -1.0}))
        assert judgement.choice_correct is False


def test_choice_margin_is_right_less_best_other() -> None:
    item = item_of({"choice_labels": ["A", "B", "C"], "correct_choice": "C"})
    judgement = judge(item, Reply(text="C", label_log_probs={"A": -3.0, "B": -2.0, "C": -0.5}))
    assert (judgement.choice_predicted, judgement.choice_margin) == ("C", 1.5)


def test_a_choice_item_without_log_probabilities_is_our_fault() -> None:
    with pytest.raises(ValueError, match="needs the log-probability"):
        judge(item_of(CHOICE), Reply(text="B"))


@pytest.mark.parametrize(
    ("split", "category", "level"),
    [
        ("smoke", None, "smoke"),
        ("safety", None, "adversarial"),
        (None, "memorization_probe", "memorization"),
        (None, "domain_faq", "domain"),
        (None, None, "heldout"),
    ],
)
def test_levels_are_inferred_where_they_are_not_given(
    split: str | None, category: str | None, level: str
) -> None:
    fields = {"must_include": ["x"], "split": split, "category": category}
    assert judge(item_of(fields), Reply(text="x")).level == level


def test_repetition_is_its_own_cluster() -> None:
    judgement = judge(item_of({"must_include": ["red"]}), Reply(text="so so so so so so so so"))
    assert cluster_of(judgement) is Cluster.DEGENERATE


def test_analysis_ranks_causes_and_weak_sets() -> None:
    judgements = [
        judge(item_of({**fields, "category": f"identity_{failure}"}), reply)
        for failure, (fields, reply, _) in BROKEN.items()
    ]
    analysis = analyse(judgements)
    assert analysis["failure_counts"] == {failure.value: 1 for failure in Failure}
    assert sum(analysis["cluster_counts"].values()) == len(Failure)
    assert analysis["weak_skills"] == ["identity"]
    assert [r["priority"] for r in analysis["recommendations"]] == list(
        range(1, len(analysis["cluster_counts"]) + 1)
    )
    assert all(r["action"] for r in analysis["recommendations"])
