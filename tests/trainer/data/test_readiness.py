"""Each check of a corpus trips at its limit, and a good corpus is ready."""

from dataclasses import replace
from typing import Any

import pytest
from picochat_contract.batch_size import stage_config
from picochat_contract.configs import BaseSection
from picochat_contract.data_configs import CleaningConfig
from picochat_trainer.data.budget import suggest_budget
from picochat_trainer.data.building.tally import Share
from picochat_trainer.data.facts import Corpus, CorpusStats
from picochat_trainer.data.readiness import Status, judge_corpus

STATS = CorpusStats(
    num_files=3,
    num_skipped_files=0,
    num_read=100,
    num_documents=100,
    num_removed=0,
    num_exact_removed=0,
    num_near_removed=0,
    num_other_removed=0,
    num_characters=200_000,
    num_bytes=200_000,
    num_lines=4_000,
    average_document_chars=2_000,
    largest_document_share=0.1,
    duplicate_document_rate=0,
    exact_left=0,
    near_duplicate_document_rate=0,
    near_duplicate_document_pairs=0,
    near_duplicate_documents_checked=100,
    near_left=0,
    duplicate_line_rate=0,
    duplicate_line_sample=1,
    non_ascii_rate=0,
    empty_line_rate=0,
)


def corpus(
    licenses: dict[str | None, Share] | None = None, dropped: dict[str, int] | None = None, **stats: Any
) -> Corpus:
    return Corpus(
        text="corpus.txt",
        text_sha256="0" * 64,
        shards=(),
        cleaning=CleaningConfig(),
        min_score=0,
        stats=replace(STATS, **stats),
        counters={},
        labels={},
        licenses=licenses or {"CC0-1.0": Share(documents=100, characters=200_000)},
        source_shares={},
        full_sources=frozenset(),
        scores={},
        flags={},
        documents=(),
        dropped=(),
        dropped_counts=dropped or {"empty_text": 4},
        dropped_examples={},
        files=(),
    )


def test_a_good_corpus_is_ready() -> None:
    found = judge_corpus(corpus())
    assert (found.status, found.summary) == (Status.READY, "every limit is kept")


@pytest.mark.parametrize(
    ("check", "kept", "over"),
    [
        ("usable_documents", {"num_documents": 2}, {"num_documents": 1}),
        ("corpus_size", {"num_characters": 1_000}, {"num_characters": 999}),
        ("document_mix", {"largest_document_share": 0.9}, {"largest_document_share": 0.91}),
        ("duplicate_documents", {"exact_left": 0.05}, {"exact_left": 0.051}),
        ("near_duplicate", {"near_left": 0.05}, {"near_left": 0.051}),
        ("near_duplicate", {"near_left": 0.0}, {"near_left": None}),
        ("duplicate_lines", {"duplicate_line_rate": 0.15}, {"duplicate_line_rate": 0.151}),
        ("empty_lines", {"empty_line_rate": 0.35}, {"empty_line_rate": 0.351}),
        ("non_ascii", {"non_ascii_rate": 0.05}, {"non_ascii_rate": 0.051}),
        ("skipped_sources", {"num_skipped_files": 0}, {"num_skipped_files": 1}),
        ("licences", {}, {"licenses": {None: Share(documents=1, characters=9)}}),
    ],
)
def test_each_check_trips_over_its_limit(check: str, kept: dict[str, Any], over: dict[str, Any]) -> None:
    assert judge_corpus(corpus(**kept)).status is Status.READY
    found = judge_corpus(corpus(**over))
    assert found.status is Status.CAUTION
    assert [c.name for c in found.checks if c.status is Status.CAUTION] == [check]


def test_without_text_it_is_blocked_and_says_why() -> None:
    found = judge_corpus(corpus(num_documents=0, num_characters=0))
    assert (found.status, found.summary) == (Status.BLOCKED, "there is no text: empty_text 4")


def test_files_that_a_recipe_excludes_do_not_count_against_the_corpus() -> None:
    assert judge_corpus(corpus(num_skipped_files=4, dropped={"recipe_excluded": 4})).status is Status.READY
    found = judge_corpus(corpus(num_skipped_files=4, dropped={"recipe_excluded": 3}))
    assert found.summary == "look at skipped_sources"


def test_removed_duplicates_do_not_count_against_the_corpus() -> None:
    found = judge_corpus(corpus(duplicate_document_rate=0.5, num_exact_removed=100, num_removed=100))
    assert found.status is Status.READY


@pytest.mark.parametrize(
    ("characters", "documents", "context"),
    [(100_000, 50, 64), (4_000_000, 1_000, 1_024), (400_000_000, 1_000_000, 256), (400_000_000, 100, 2_048)],
)
def test_the_suggested_context_fits_documents_and_corpus(
    characters: int, documents: int, context: int
) -> None:
    budget = suggest_budget(replace(STATS, num_characters=characters, num_documents=documents))
    assert budget.suggested_context_size == context
    assert f"--max-steps {budget.suggested_base_steps} " in budget.training_command
    tokens = budget.estimated_tokens
    assert budget.suggested_base_steps == pytest.approx(min(100_000, 4 * tokens / (16 * context)), abs=0.5)


def test_the_suggested_command_trains_on_the_tokens_that_its_steps_were_chosen_for() -> None:
    command = suggest_budget(replace(STATS, num_characters=400_000_000, num_documents=100)).training_command
    words = command.split()
    given = {word: words[i + 1] for i, word in enumerate(words) if word.startswith("--")}
    section = BaseSection.model_validate(
        {
            "model": {"sequence_len": given["--context-size"]},
            "max_steps": given["--max-steps"],
            "device_batch_size": given["--batch-size"],
            "grad_accum_steps": given.get("--grad-accum-steps"),
        }
    )
    assert stage_config(section, 1).grad_accum_steps == 1  # steps are counted for 16 rows each
