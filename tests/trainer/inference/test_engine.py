"""The engine against the plain uncached loop, and its rules at the edges.

T tokens, V vocab
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from picochat_contract.configs import ModelConfig, Precision
from picochat_contract.errors import Code, ContractError
from picochat_trainer.inference import Completion, Engine, SamplingParams
from picochat_trainer.inference.batch import Batch, fit_prompt
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.training.checkpoint import Metadata, Weights, save_weights

PROMPTS = [[10, 20, 30], [40] * 11, [7], [99, 98, 97, 96, 95, 94, 93], list(range(100, 130))]


@torch.inference_mode()
def plain_greedy(model: GPT, prompt: Sequence[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def greedy(count: int, **settings: object) -> SamplingParams:
    return SamplingParams(max_new_tokens=count, temperature=0.0, **settings)  # type: ignore[arg-type]


def test_cached_greedy_equals_the_uncached_loop(engine: Engine) -> None:
    answers = engine.generate(PROMPTS, greedy(20))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert list(answer.token_ids) == plain_greedy(engine.model, prompt, 20)
        assert answer.finish_reason == "length"
        assert not answer.truncated


@pytest.mark.parametrize("settings", [{"top_k": 20}, {"top_p": 0.9}, {"repetition_penalty": 1.5}, {}])
def test_a_batch_answers_as_single_prompts_do(engine: Engine, settings: dict[str, float]) -> None:
    params = SamplingParams(max_new_tokens=16, temperature=1.0, seed=5, **settings)  # type: ignore[arg-type]
    together = engine.generate(PROMPTS, params)
    assert together == [engine.generate([prompt], params)[0] for prompt in PROMPTS]
    assert len({answer.token_ids for answer in together}) > 1


def test_more_prompts_than_slots_are_all_answered(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = engine.generate(PROMPTS, greedy(9))
    monkeypatch.setattr("picochat_trainer.inference.engine.MAX_SLOTS", 2)
    monkeypatch.setattr("picochat_trainer.inference.batch.PREFILL_TOKENS", 16)
    done: dict[int, Completion] = {}
    assert engine.generate(PROMPTS, greedy(9), on_done=done.__setitem__) == expected
    assert done == dict(enumerate(expected))


def test_rows_join_and_leave_in_mid_generation(engine: Engine) -> None:
    expected = engine.generate(PROMPTS, greedy(12))
    batch = Batch(engine.model, 3)
    rows = [engine.new_generation(prompt, greedy(12)) for prompt in PROMPTS]
    leaving = engine.new_generation([50, 51], greedy(12))
    batch.admit(leaving)
    batch.admit(rows[0])
    waiting = rows[1:]
    steps = 0
    while batch.busy or waiting:
        if waiting and batch.num_free and steps % 2 == 0:
            batch.admit(waiting.pop(0))
        batch.step()
        steps += 1
        leaving.cancelled = leaving.cancelled or steps == 3
    assert len(leaving.token_ids) == 3
    assert [row.completion() for row in rows] == expected


def test_a_full_batch_admits_no_more(engine: Engine) -> None:
    batch = Batch(engine.model, 1)
    batch.admit(engine.new_generation([1], greedy(2)))
    with pytest.raises(RuntimeError, match="the batch is full"):
        batch.admit(engine.new_generation([1], greedy(2)))


def test_seeds_repeat_and_differ(engine: Engine) -> None:
    def answer(seed: int) -> Completion:
        return engine.generate([PROMPTS[0]], SamplingParams(max_new_tokens=20, temperature=1.0, seed=seed))[0]

    assert answer(3) == answer(3)
    assert answer(3) != answer(4)


def test_repetition_penalty_reaches_the_answer(engine: Engine) -> None:
    plain, penalised = (
        engine.generate([PROMPTS[0]], greedy(30, repetition_penalty=penalty))[0].token_ids
        for penalty in (1.0, 5.0)
    )
    assert len(set(penalised)) > len(set(plain))


def test_stream_gives_the_text_of_generate_token_by_token(engine: Engine) -> None:
    params = SamplingParams(max_new_tokens=40, temperature=1.0, seed=2)
    whole = engine.generate([PROMPTS[0]], params)[0]
    pieces = list(engine.stream(PROMPTS[0], params))
    assert [piece.token_id for piece in pieces] == list(whole.token_ids)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [piece.finish_reason for piece in pieces] == [None] * 39 + ["length"]
    assert sum(bool(piece.text) for piece in pieces) > 10


def test_a_stop_token_ends_the_answer_and_is_not_in_it(engine: Engine) -> None:
    free = engine.generate([PROMPTS[0]], greedy(20))[0]
    stop_id = free.token_ids[6]
    first = free.token_ids.index(stop_id)
    stopped = engine.generate([PROMPTS[0]], greedy(20, stop_ids={stop_id}))[0]
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free.token_ids[:first]
    last = list(engine.stream(PROMPTS[0], greedy(20, stop_ids={stop_id})))[-1]
    assert (last.token_id, last.finish_reason) == (None, "stop")


def test_a_stop_text_ends_the_answer_and_is_not_in_it(engine: Engine) -> None:
    params = SamplingParams(max_new_tokens=50, temperature=1.0, top_k=20, seed=1)
    free = engine.generate([PROMPTS[0]], params)[0]
    stop = free.text[5:8]
    settings = {
        "max_new_tokens": 50,
        "temperature": 1.0,
        "top_k": 20,
        "seed": 1,
        "stop": (stop, "never comes"),
    }
    stopped = engine.generate([PROMPTS[0]], SamplingParams(**settings))[0]  # type: ignore[arg-type]
    assert stopped.finish_reason == "stop"
    assert stopped.text == free.text[: free.text.index(stop)]
    assert len(stopped.token_ids) < len(free.token_ids)


def test_generation_ends_with_the_context(engine: Engine) -> None:
    prompt = [5] * (engine.context - 3)
    answer = engine.generate([prompt], greedy(50))[0]
    assert answer.finish_reason == "length"
    assert list(answer.token_ids) == plain_greedy(engine.model, prompt, 4)


def test_a_prompt_over_the_context_keeps_its_last_tokens_and_says_so(engine: Engine) -> None:
    prompt = [index % 250 for index in range(engine.context + 30)]
    answer = engine.generate([prompt], greedy(10))[0]
    assert answer.truncated
    assert list(answer.token_ids) == plain_greedy(engine.model, prompt[-(engine.context - 10) :], 10)
    assert next(engine.stream(prompt, greedy(10))).truncated


@pytest.mark.parametrize(("length", "max_new", "kept"), [(64, 60, 64), (65, 10, 54), (65, 60, 32), (1, 9, 1)])
def test_prompts_leave_room_for_the_answer_only_when_cut(length: int, max_new: int, kept: int) -> None:
    prompt = list(range(length))
    assert fit_prompt(prompt, max_new, 64) == prompt[-kept:]


def test_an_empty_prompt_is_refused(engine: Engine) -> None:
    with pytest.raises(ContractError, match="at least one token"):
        engine.generate([[]], greedy(1))


def test_no_prompts_give_no_answers(engine: Engine) -> None:
    assert engine.generate([], greedy(1)) == []


@torch.inference_mode()
def plain_score(model: GPT, prompt: Sequence[int], continuation: Sequence[int]) -> float:
    logits_TV = model(torch.tensor([[*prompt, *continuation]]))[0].double()
    logs_TV = torch.log_softmax(logits_TV, dim=-1)
    start = len(prompt) - 1
    return sum(logs_TV[start + i, token].item() for i, token in enumerate(continuation))


@pytest.mark.parametrize("prompt", [[7], [10, 20, 30, 40]])
def test_score_is_the_sum_of_log_probabilities(
    engine: Engine, prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    continuations = [[1, 2, 3], [9], [], [200, 100, 50, 25, 12]]
    monkeypatch.setattr("picochat_trainer.inference.engine.MAX_SLOTS", 3)
    scores = engine.score(prompt, continuations)
    expected = [plain_score(engine.model, prompt, continuation) for continuation in continuations]
    assert scores == pytest.approx(expected, abs=1e-4)


def test_score_drops_the_prompts_start_where_the_context_ends(engine: Engine) -> None:
    prompt = [index % 250 for index in range(80)]
    scores = engine.score(prompt, [[1, 2], [3] * 14])
    assert scores == pytest.approx(
        [plain_score(engine.model, prompt[-50:], ids) for ids in ([1, 2], [3] * 14)], abs=1e-4
    )


@pytest.mark.parametrize(("prompt", "continuation"), [([], [1]), ([1], [1] * 64)])
def test_score_refuses_what_has_no_place(engine: Engine, prompt: list[int], continuation: list[int]) -> None:
    with pytest.raises(ContractError, match="score: expected a prompt"):
        engine.score(prompt, [continuation])


def test_broken_weights_are_reported(model: GPT, tokenizer: Tokenizer) -> None:
    broken = GPT(model.config, model.vocab_size)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ContractError, match="expected finite logits") as caught:
        Engine(broken, tokenizer).generate([[1]], greedy(1))
    assert caught.value.code is Code.CHECKPOINT_CORRUPT


def test_a_tokenizer_larger_than_the_model_is_refused(tokenizer: Tokenizer) -> None:
    small = GPT(ModelConfig(n_layer=1, n_embd=8, n_head=2, sequence_len=8), tokenizer.vocab_size - 1)
    with pytest.raises(ContractError, match="got 260; give the"):
        Engine(small, tokenizer)


def test_a_padded_head_generates_without_text_for_the_padding(tokenizer: Tokenizer) -> None:
    padded = GPT(ModelConfig(n_layer=1, n_embd=8, n_head=2, sequence_len=16), tokenizer.vocab_size + 60)
    padded.init_weights(0)
    answer = Engine(padded, tokenizer).generate([[1]], SamplingParams(max_new_tokens=15, temperature=5.0))[0]
    assert max(answer.token_ids) >= tokenizer.vocab_size


def test_load_answers_as_the_saved_model_and_names_its_digest(
    engine: Engine, checkpoint_dir: Path, tokenizer_json: Path
) -> None:
    loaded = Engine.load(checkpoint_dir, tokenizer_json)
    assert loaded.generate(PROMPTS, greedy(8)) == engine.generate(PROMPTS, greedy(8))
    metadata = json.loads((checkpoint_dir / "metadata.json").read_text())
    assert loaded.checkpoint_sha256 == metadata["files"]["model.safetensors"]


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("float32", torch.float32), ("bf16", torch.bfloat16)],
)
def test_precision_on_the_cpu_is_float32_unless_asked(
    precision: Precision, dtype: torch.dtype, checkpoint_dir: Path, tokenizer_json: Path
) -> None:
    loaded = Engine.load(checkpoint_dir, tokenizer_json, precision=precision)
    assert loaded.model.model.norm.weight.dtype == dtype
    assert len(loaded.generate([[1, 2]], greedy(5))[0].token_ids) == 5
    assert loaded.score([1, 2], [[3, 4]])[0] < 0


def test_a_missing_checkpoint_is_named(tmp_path: Path, tokenizer_json: Path) -> None:
    with pytest.raises(ContractError, match="no checkpoint at") as caught:
        Engine.load(tmp_path / "nowhere", tokenizer_json)
    assert caught.value.code is Code.FILE_UNREADABLE


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path, model: GPT, tokenizer_json: Path) -> None:
    other = model.config.model_copy(update={"n_layer": 3})
    weights = Weights(config=other, vocab_size=model.vocab_size, tensors=dict(model.state_dict()))
    save_weights(tmp_path / "odd", weights, Metadata(kind="last", step=1))
    with pytest.raises(ContractError, match="does not fit") as caught:
        Engine.load(tmp_path / "odd", tokenizer_json)
    assert caught.value.code is Code.CHECKPOINT_CORRUPT
