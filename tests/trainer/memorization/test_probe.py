"""The report as a whole: what a gate reads of it, how large samples are, what people read."""

from collections.abc import Callable

import pytest
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_contract.spec import validated
from picochat_trainer.inference.engine import Engine
from picochat_trainer.memorization.canaries import plan_canaries
from picochat_trainer.memorization.markdown import memorization_lines
from picochat_trainer.memorization.probe import MAX_SPANS, Memorization, effort_for, measure_memorization
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.pretraining_data import read_pretraining_data, split_for

Measure = Callable[..., Memorization]


@pytest.fixture
def measure(
    make_store: Callable[[list[str]], TokenStore], words: Callable[[int, int], str], tokenizer: Tokenizer
) -> Measure:
    def measured(engine: Engine, *, text: str | None = None, canary_count: int = 1) -> Memorization:
        documents = [words(i, 600) + (text or "") for i in range(20)]
        store = make_store(documents)
        config = validated(
            BaseConfig, {"model": {"sequence_len": 64}, "canary_count": canary_count, "val_fraction": 0.4}
        )
        split = split_for(store, config)
        plan = plan_canaries(canary_count, config.canary_repeats, 1, tokenizer, split.corpus_train.num_tokens)
        data = read_pretraining_data(store, config, split.with_extra(plan.documents, 1))
        return measure_memorization(engine, tokenizer, data, plan, subject="s")

    return measured


def test_a_model_without_memory_reaches_the_floor_only(measure: Measure, untrained: Engine) -> None:
    found = measure(untrained)
    evidence = found.evidence
    assert (evidence["canary_count"], evidence["canary_hits"]) == (1, 0)
    assert evidence["control_exposure_bits"] == found.report["exposure"]["controls"]["median_bits"]
    assert evidence["extractable"]["num_examples"] >= 100
    assert evidence["extractable"]["num_passed"] == evidence["extractable_heldout"]["num_passed"] == 0
    assert found.report["extraction"]["examples"] == []


def test_a_memorized_passage_is_listed_with_its_document(
    measure: Measure, learned: Callable[..., Engine]
) -> None:
    passage = "the quick brown fox jumps over the lazy dog, and nobody knows why it always is the same dog!"
    found = measure(learned(passage, 150), text=passage)
    strata = {stratum["occurrences"]: stratum for stratum in found.report["extraction"]["strata"]}
    assert strata["5-16"]["extractable"]["num_passed"]
    examples = [e for e in found.report["extraction"]["examples"] if e["occurrences"] > 4]
    assert examples and all(e["prefix"] + e["text"] in passage for e in examples)
    assert all(e["document_id"].startswith("id-") for e in examples)
    assert "examples" not in found.summary["extraction"]


def test_without_canaries_there_is_no_exposure_to_read(measure: Measure, untrained: Engine) -> None:
    found = measure(untrained, canary_count=0)
    assert found.report["exposure"] is None and found.report["canaries"] == []
    assert found.evidence["exposure_bits"] is found.evidence["control_exposure_bits"] is None
    assert found.evidence["canary_count"] == 0
    assert memorization_lines(found.report)[0] == "No canaries were planted."


def test_the_table_has_a_row_for_every_stratum_and_the_floor(measure: Measure, untrained: Engine) -> None:
    lines = memorization_lines(measure(untrained).report)
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert rows[:3] == ["inserted", "once", "never (control)"]
    assert rows[3:] == ["occurrences", "1", "2-4", "5-16", "17-64", "65+", "held out"]
    assert any(line.startswith("Note: no canary is repeated 4, 16, 64 times") for line in lines)


def test_larger_models_are_asked_less_but_never_too_little() -> None:
    small = effort_for(GPT(ModelConfig(n_layer=1, n_embd=16), 300), num_canaries=20)
    large = effort_for(GPT(ModelConfig(n_layer=8, n_embd=512), 300), num_canaries=20)
    assert (small.num_candidates, small.num_spans) == (512, 333) and small.num_spans <= MAX_SPANS
    assert (large.num_candidates, large.num_spans) == (256, 100)
    assert effort_for(GPT(ModelConfig(n_layer=1, n_embd=16), 300), num_canaries=0).num_candidates == 1_024
