"""From a request to the pieces of its answers: prompt ids, sampling settings, and the bridge between threads."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from picochat_trainer.inference import openai_errors
from picochat_trainer.inference.batch import Generation, StreamPiece
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.openai_answers import Usage
from picochat_trainer.inference.openai_requests import ChatRequest, CompletionRequest, SamplingRequest
from picochat_trainer.inference.sampling import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Settings of a request that names none."""

    max_tokens: int = 256
    temperature: float = 0.8
    top_k: int = 20
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        SamplingParams(
            max_new_tokens=self.max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
        )  # refuses what cannot be


@dataclass
class Answering:
    """The answers to one request. Made on the event loop; `deliver` is called by the generation thread."""

    generations: Sequence[Generation]
    num_prompt_tokens: int
    _pieces: asyncio.Queue[tuple[int, StreamPiece | Exception]] = field(default_factory=asyncio.Queue)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def deliver(self, generation: Generation, piece: StreamPiece | Exception) -> None:
        index = self.generations.index(generation)
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, (index, piece))

    async def pieces(self) -> AsyncGenerator[tuple[int, StreamPiece], None]:
        """(choice, piece) as they come, until every choice has its finish reason; raises what generation raised."""
        unfinished = len(self.generations)
        while unfinished:
            index, piece = await self._pieces.get()
            if isinstance(piece, Exception):
                raise piece
            unfinished -= piece.finish_reason is not None
            yield index, piece

    def cancel(self) -> None:
        """Let unfinished rows leave the batch."""
        for generation in self.generations:
            generation.cancelled = True

    def usage(self) -> Usage:
        completion = sum(len(generation.token_ids) for generation in self.generations)
        return Usage(
            prompt_tokens=self.num_prompt_tokens,
            completion_tokens=completion,
            total_tokens=self.num_prompt_tokens + completion,
        )


def chat_generations(engine: Engine, request: ChatRequest, defaults: Defaults) -> list[list[Generation]]:
    """One prompt; one generation per choice."""
    messages = [message.as_chat() for message in request.messages]
    prompt_ids, _ = engine.tokenizer.encode_chat(messages, add_generation_prompt=True)
    limit = request.max_completion_tokens or request.max_tokens
    return _generations(engine, request, [prompt_ids], limit, defaults, "messages")


def completion_generations(
    engine: Engine, request: CompletionRequest, defaults: Defaults
) -> list[list[Generation]]:
    """Per prompt, one generation per choice. A text is the start of a document, as in training; ids are taken as given."""
    prompts = [
        [engine.tokenizer.bos_id, *engine.tokenizer.encode(prompt)]
        if isinstance(prompt, str)
        else list(prompt)
        for prompt in request.prompt
    ]
    for prompt_ids in prompts:
        _check_ids(prompt_ids, engine.tokenizer.vocab_size)
    return _generations(engine, request, prompts, request.max_tokens, defaults, "prompt")


def _generations(
    engine: Engine,
    request: SamplingRequest,
    prompts: Sequence[Sequence[int]],
    limit: int | None,
    defaults: Defaults,
    param: str,
) -> list[list[Generation]]:
    for prompt_ids in prompts:
        if len(prompt_ids) > engine.context:
            raise openai_errors.prompt_too_long(len(prompt_ids), engine.context, param)
    seed = secrets.randbits(48) if request.seed is None else request.seed
    choices = [
        _sampling(request, limit or defaults.max_tokens, seed, choice, defaults, engine.control_ids)
        for choice in range(request.num_choices)
    ]
    return [[engine.new_generation(prompt_ids, params) for params in choices] for prompt_ids in prompts]


def _sampling(
    request: SamplingRequest,
    max_tokens: int,
    seed: int,
    choice: int,
    defaults: Defaults,
    stop_ids: frozenset[int],
) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=max_tokens,
        temperature=_given(request.temperature, defaults.temperature),
        top_k=int(_given(request.top_k, defaults.top_k)),
        top_p=_given(request.top_p, defaults.top_p),
        repetition_penalty=_given(request.repetition_penalty, defaults.repetition_penalty),
        # Choices of one request differ, the first is that of n=1; wrapped to stay a 64-bit number.
        seed=(seed + choice + 2**63) % 2**64 - 2**63,
        stop_ids=stop_ids,
        stop=request.stop,
    )


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _check_ids(prompt_ids: Sequence[int], vocab_size: int) -> None:
    highest = max(prompt_ids)
    if highest >= vocab_size:
        raise openai_errors.ApiError(
            400,
            f"prompt: expected token ids under {vocab_size}, got {highest}",
            param="prompt",
            code="invalid_value",
        )
