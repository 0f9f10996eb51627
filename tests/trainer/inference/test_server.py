"""The model server under the official openai package, over a real socket."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from picochat_contract.configs import ModelConfig
from picochat_trainer.inference import Engine, SamplingParams
from picochat_trainer.inference.answering import Defaults
from picochat_trainer.inference.batch import Batch, Generation, StreamPiece
from picochat_trainer.inference.guard import MAX_BODY_BYTES
from picochat_trainer.inference.server import ServerSettings
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer

MODEL = "pico-test"
KEY = "sk-test-key"
SETTINGS = ServerSettings(
    model_name=MODEL, api_key=KEY, defaults=Defaults(max_tokens=12, temperature=1.0, top_k=0)
)
QUESTION: Any = [{"role": "user", "content": "Hi"}]
Waiter = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="module")
def server(engine: Engine, start_server: Any) -> Any:
    return start_server(engine, SETTINGS)


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[OpenAI]:
    with server.client(KEY) as client:
        yield client


def expected(engine: Engine, prompt_ids: list[int], **settings: Any) -> str:
    params = {"max_new_tokens": 12, "temperature": 1.0, "stop_ids": engine.control_ids, **settings}
    return engine.generate([prompt_ids], SamplingParams(**params))[0].text


def chat_ids(engine: Engine) -> list[int]:
    return engine.tokenizer.encode_chat(QUESTION, add_generation_prompt=True)[0]


def text_ids(engine: Engine, text: str) -> list[int]:
    return [engine.tokenizer.bos_id, *engine.tokenizer.encode(text)]


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "picochat"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def test_chat_answers_what_the_engine_generates(client: OpenAI, engine: Engine) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, seed=5)
    choice = answer.choices[0]
    assert choice.message.content == expected(engine, chat_ids(engine), seed=5)
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(chat_ids(engine))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.id.startswith("chatcmpl-")


def test_chat_streams_the_same_text_in_many_pieces(client: OpenAI) -> None:
    settings: Any = {"model": MODEL, "messages": QUESTION, "seed": 5, "max_completion_tokens": 20}
    whole = client.chat.completions.create(**settings)
    chunks = list(
        client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert len(chunks) > 8
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_stream_has_openais_framing(server: Any) -> None:
    body = {"model": MODEL, "messages": QUESTION, "stream": True, "max_tokens": 3}
    answer = httpx.post(
        f"{server.url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {KEY}"}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert all(event.startswith("data: ") for event in events[:-1])
    assert events[-2:] == ["data: [DONE]", ""]
    first, last = json.loads(events[0][6:]), json.loads(events[-3][6:])
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert last["choices"][0]["delta"] == {}
    assert "usage" not in first


def test_text_parts_and_all_roles_are_accepted(client: OpenAI, engine: Engine) -> None:
    messages: Any = [
        {"role": "developer", "content": "B"},
        {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
        {"role": "assistant", "content": "Y"},
        {"role": "user", "content": "?"},
    ]
    plain = [
        {"role": "system", "content": "B"},
        {"role": "user", "content": "Hi"},
        *messages[2:],
    ]
    ids = engine.tokenizer.encode_chat(plain, add_generation_prompt=True)[0]
    answer = client.chat.completions.create(model=MODEL, messages=messages, seed=1, max_tokens=3)
    assert answer.choices[0].message.content == expected(engine, ids, seed=1, max_new_tokens=3)


def test_completions_continue_texts_and_ids(client: OpenAI, engine: Engine) -> None:
    prompts: Any = ["The ", "A"]
    answer = client.completions.create(model=MODEL, prompt=prompts, seed=3, n=2, max_tokens=6)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == [
        expected(engine, text_ids(engine, text), seed=seed, max_new_tokens=6)
        for text in prompts
        for seed in (3, 4)
    ]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(len(text_ids(engine, text)) for text in prompts)
    by_ids = client.completions.create(model=MODEL, prompt=[10, 20, 30], seed=3, max_tokens=6)
    assert by_ids.choices[0].text == expected(engine, [10, 20, 30], seed=3, max_new_tokens=6)


def test_completions_stream(client: OpenAI, engine: Engine) -> None:
    chunks = list(client.completions.create(model=MODEL, prompt="The ", seed=5, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected(
        engine, text_ids(engine, "The "), seed=5
    )
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "length"]
    assert {chunk.object for chunk in chunks} == {"text_completion"}


@pytest.mark.parametrize("as_list", [True, False])
def test_a_stop_text_ends_the_answer(client: OpenAI, engine: Engine, as_list: bool) -> None:
    free = expected(engine, text_ids(engine, "The "), seed=5)
    stop = free[4:6]
    answer = client.completions.create(
        model=MODEL, prompt="The ", seed=5, stop=[stop, "zzzz"] if as_list else stop
    )
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].text == free[: free.index(stop)]


def test_a_seed_repeats_and_without_one_answers_differ(client: OpenAI) -> None:
    def ask(**settings: Any) -> str:
        answer: Any = client.completions.create(model=MODEL, prompt="x", max_tokens=30, **settings)
        return str(answer.choices[0].text)

    assert ask(seed=9) == ask(seed=9)
    assert len({ask() for _ in range(4)}) > 1


def test_choices_differ_from_each_other(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, seed=2, n=4, max_tokens=20)
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_extensions_reach_the_sampler(client: OpenAI, engine: Engine) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="x", seed=1, extra_body={"top_k": 1, "repetition_penalty": 3.0}
    )
    ids = text_ids(engine, "x")
    assert answer.choices[0].text == expected(engine, ids, temperature=0.0, repetition_penalty=3.0)


def test_an_answer_ends_with_the_context(client: OpenAI, engine: Engine) -> None:
    answer = client.completions.create(model=MODEL, prompt=[5] * 60, max_tokens=10_000, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nothing", "/v1/chat/completions"])
@pytest.mark.parametrize("header", ["", "Bearer wrong", f"Basic {KEY}", "Bearer", f"Bearer {KEY}x"])
def test_without_the_key_nothing_answers(server: Any, path: str, header: str) -> None:
    answer = httpx.get(server.url + path, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "picochat-checkpoint" not in answer.headers


def test_a_wrong_key_is_an_authentication_error(server: Any) -> None:
    with server.client("sk-wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_health_is_open_and_names_the_checkpoint(server: Any) -> None:
    answer = httpx.get(f"{server.url}/healthz")
    assert answer.json() == {"status": "ok", "model": MODEL, "checkpoint": "unsaved"}


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-5", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"temperature": 5}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 9}, "n"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"stream": True, "n": 2}, "n"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"extra_body": {"temperatur": 1}}, "temperatur"),
    ],
)
def test_bad_parameters_are_named(client: OpenAI, settings: dict[str, Any], param: str) -> None:
    body: Any = {"model": MODEL, "messages": QUESTION, **settings}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**body)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_neutral_values_of_unsupported_parameters_are_accepted(client: OpenAI) -> None:
    client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        max_tokens=1,
        frequency_penalty=0,
        logprobs=False,
        response_format={"type": "text"},
        user="someone",
    )


@pytest.mark.parametrize(
    "prompt", [[], [[]], [["a"]], [1, "a"], 7, [300], "b" * 100, ["a"] * 9, [True], [-1]]
)
def test_impossible_prompts_are_refused(client: OpenAI, prompt: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=prompt)
    assert caught.value.param == "prompt"


def test_a_prompt_over_the_context_is_refused_with_its_code(client: OpenAI) -> None:
    long: Any = [{"role": "user", "content": "x" * 100}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=long)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_refused(server: Any, chunked: bool) -> None:
    part = b"x" * 65536
    count = MAX_BODY_BYTES // len(part) + 1
    content: Any = (part for _ in range(count)) if chunked else part * count
    answer = httpx.post(
        f"{server.url}/v1/completions", content=content, headers={"Authorization": f"Bearer {KEY}"}
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/completions", b"{not json", 400),
        ("POST", "/v1/completions", b"[]", 400),
        ("POST", "/v1/completions", b"", 400),
        ("POST", "/v1/embeddings", b"{}", 404),
        ("GET", "/v1/completions", b"", 405),
    ],
)
def test_other_errors_have_openais_shape(
    server: Any, method: str, path: str, content: bytes, status: int
) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    answer = httpx.request(method, server.url + path, content=content, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_no_cors_header_is_sent(server: Any) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Origin": "https://elsewhere.example"}
    answer = httpx.get(f"{server.url}/v1/models", headers=headers)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_without_a_key_only_loopback_names_answer(engine: Engine, start_server: Any) -> None:
    server = start_server(engine, replace(SETTINGS, api_key=None))
    with server.client() as client:
        assert len(client.models.list().data) == 1
    answer = httpx.get(f"{server.url}/v1/models", headers={"Host": "evil.example"})
    assert answer.status_code == 421
    assert answer.json()["error"]["code"] == "bad_host"


class GatedBatch(Batch):
    """Generates only while `gate` is open, one permit per step."""

    gate = threading.Semaphore(0)

    def step(self) -> list[tuple[Generation, StreamPiece]]:
        assert self.gate.acquire(timeout=30)
        return super().step()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    monkeypatch.setattr("picochat_trainer.inference.scheduler.Batch", GatedBatch)
    monkeypatch.setattr(GatedBatch, "gate", threading.Semaphore(0))
    yield GatedBatch.gate
    GatedBatch.gate.release(10_000)


@pytest.fixture
def long_engine(tokenizer: Tokenizer) -> Engine:
    """Room for answers that do not end by themselves within a test."""
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, sequence_len=4096), tokenizer.vocab_size)
    model.init_weights(0)
    return Engine(model, tokenizer)


def test_a_full_queue_answers_429(
    gate: threading.Semaphore, engine: Engine, start_server: Any, wait_until: Waiter
) -> None:
    server = start_server(engine, replace(SETTINGS, num_slots=1, max_waiting=1))
    with server.client(KEY) as asking, ThreadPoolExecutor(2) as pool:

        def ask() -> Any:
            return asking.completions.create(model=MODEL, prompt="x", max_tokens=2)

        running = pool.submit(ask)
        wait_until(lambda: server.scheduler.num_unfinished == 1 and server.scheduler.num_waiting == 0)
        waiting = pool.submit(ask)
        wait_until(lambda: server.scheduler.num_waiting == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            ask()
        assert int(caught.value.response.headers["retry-after"]) >= 1
        gate.release(100)
        assert running.result().choices
        assert waiting.result().choices


def test_tokens_are_sent_as_they_come(
    gate: threading.Semaphore, engine: Engine, start_server: Any, wait_until: Waiter
) -> None:
    server = start_server(engine, SETTINGS)
    gate.release(4)
    with server.client(KEY) as client:
        stream = client.completions.create(
            model=MODEL, prompt="The ", max_tokens=8, temperature=0, stream=True
        )
        assert next(iter(stream)).choices[0].finish_reason is None
        assert server.scheduler.num_unfinished == 1  # the rest is not generated yet
        gate.release(100)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] in ("length", "stop")


@pytest.mark.parametrize("stream", [True, False])
def test_generation_ends_when_the_client_leaves(
    gate: threading.Semaphore, long_engine: Engine, start_server: Any, wait_until: Waiter, stream: bool
) -> None:
    server = start_server(long_engine, SETTINGS)
    body = {"model": MODEL, "prompt": "x", "max_tokens": 4000, "temperature": 0, "stream": stream}
    gate.release(20)
    with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=1) as client:
        if stream:
            with client.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
                next(answer.iter_raw())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{server.url}/v1/completions", json=body)
    wait_until(lambda: _release(gate) and server.scheduler.num_unfinished == 0)
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def _release(gate: threading.Semaphore) -> bool:
    """One more step: a row that was cancelled leaves at the next one."""
    gate.release()
    return True


def test_a_failure_of_the_model_is_a_500_and_the_server_lives_on(
    engine: Engine, start_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(engine, SETTINGS)
    with server.client(KEY) as client:
        with monkeypatch.context() as patch:
            patch.setattr(engine.model, "hidden", _fail)
            with pytest.raises(openai.InternalServerError) as caught:
                client.completions.create(model=MODEL, prompt="x")
            assert "secret" not in str(caught.value)
            with pytest.raises(openai.APIError):
                list(client.completions.create(model=MODEL, prompt="x", stream=True))
        assert client.completions.create(model=MODEL, prompt="x", max_tokens=1).choices


def _fail(*args: Any) -> Any:
    raise RuntimeError("secret path")
