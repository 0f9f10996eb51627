"""Bodies of OpenAI's answers and stream chunks."""

from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from picochat_trainer.inference.batch import Completion, FinishReason


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(Answer):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Answer):
    index: int
    message: ChatMessage
    logprobs: None = None
    finish_reason: FinishReason


class TextChoice(Answer):
    """Also the choice of a stream chunk, whose finish reason is None but for the last."""

    text: str
    index: int
    logprobs: None = None
    finish_reason: FinishReason | None


class Head(Answer):
    """What every answer and chunk begins with."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(Head):
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
    usage: Usage


class TextCompletion(Head):
    object: Literal["text_completion"] = "text_completion"
    choices: list[TextChoice]
    usage: Usage | None = None


class ChatChunkChoice(Answer):
    index: int
    delta: dict[Literal["role", "content"], str]
    logprobs: None = None
    finish_reason: FinishReason | None


class ChatChunk(Head):
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class Model(Answer):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "picochat"


class ModelList(Answer):
    object: Literal["list"] = "list"
    data: list[Model]


class Writer(Protocol):
    """Builds the bodies of one answer, whole or in chunks."""

    def whole(self, completions: Sequence[Completion], usage: Usage) -> Answer: ...

    def opening(self) -> Answer | None: ...

    def text(self, text: str) -> Answer: ...

    def end(self, finish_reason: FinishReason) -> Answer: ...

    def usage(self, usage: Usage) -> Answer: ...


class ChatWriter:
    def __init__(self, head: Head) -> None:
        self._head = head.model_dump()

    def whole(self, completions: Sequence[Completion], usage: Usage) -> ChatCompletion:
        choices = [
            ChatChoice(
                index=index,
                message=ChatMessage(content=completion.text),
                finish_reason=completion.finish_reason,
            )
            for index, completion in enumerate(completions)
        ]
        return ChatCompletion(**self._head, choices=choices, usage=usage)

    def opening(self) -> ChatChunk:
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> ChatChunk:
        return self._chunk({"content": text})

    def end(self, finish_reason: FinishReason) -> ChatChunk:
        return self._chunk({}, finish_reason)

    def usage(self, usage: Usage) -> ChatChunk:
        return ChatChunk(**self._head, choices=[], usage=usage)

    def _chunk(
        self, delta: dict[Literal["role", "content"], str], finish_reason: FinishReason | None = None
    ) -> ChatChunk:
        choice = ChatChunkChoice(index=0, delta=delta, finish_reason=finish_reason)
        return ChatChunk(**self._head, choices=[choice])


class TextWriter:
    def __init__(self, head: Head) -> None:
        self._head = head.model_dump()

    def whole(self, completions: Sequence[Completion], usage: Usage) -> TextCompletion:
        choices = [
            TextChoice(text=completion.text, index=index, finish_reason=completion.finish_reason)
            for index, completion in enumerate(completions)
        ]
        return TextCompletion(**self._head, choices=choices, usage=usage)

    def opening(self) -> None:
        return None

    def text(self, text: str) -> TextCompletion:
        return self._chunk(text)

    def end(self, finish_reason: FinishReason) -> TextCompletion:
        return self._chunk("", finish_reason)

    def usage(self, usage: Usage) -> TextCompletion:
        return TextCompletion(**self._head, choices=[], usage=usage)

    def _chunk(self, text: str, finish_reason: FinishReason | None = None) -> TextCompletion:
        choice = TextChoice(text=text, index=0, finish_reason=finish_reason)
        return TextCompletion(**self._head, choices=[choice])
