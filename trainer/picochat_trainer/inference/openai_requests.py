"""Bodies of OpenAI's chat and completion requests, as far as they mean something here.

What would change the answer but is not supported is refused unless it has its neutral value; what only labels a
request is accepted and ignored; anything else is an error, so that a misspelt name is found.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

MAX_CHOICES = 8
MAX_STOPS = 4
MAX_PROMPTS = 8

# Name to the values that change nothing.
_NOT_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "suffix": (None, ""),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "top_logprobs": (None, 0),
}
_IGNORED = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)


def refusal(param: str, message: str) -> PydanticCustomError:
    """An error of a check over several fields: the context says which one to change."""
    return PydanticCustomError("invalid_value", "{message}", {"param": param, "message": message})


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _stop_texts(value: Any) -> Any:
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("expected a text or a list of texts, none of them empty")
    if len(texts) > MAX_STOPS:
        raise ValueError(f"expected at most {MAX_STOPS} texts, got {len(texts)}")
    return tuple(texts)


def _content_text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts: list[str] = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError('expected a text or a list of {"type": "text", "text": ...} parts')
        texts.append(part["text"])
    return "".join(texts)


def _prompt_list(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """OpenAI takes a text, a list of texts, a list of token ids, or a list of such lists."""
    single = isinstance(value, str) or (isinstance(value, list) and bool(value) and _is_ids(value))
    prompts = [value] if single else value
    if not isinstance(prompts, list) or not 1 <= len(prompts) <= MAX_PROMPTS:
        raise ValueError(f"expected a text, a list of token ids, or a list of 1 to {MAX_PROMPTS} of these")
    if not all(isinstance(prompt, str) or (prompt and _is_ids(prompt)) for prompt in prompts):
        raise ValueError("expected every prompt to be a text or a list of token ids that is not empty")
    return tuple(prompt if isinstance(prompt, str) else tuple(prompt) for prompt in prompts)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


class StreamOptions(Shape):
    include_usage: bool = False
    include_obfuscation: bool = False


class SamplingRequest(Shape):
    """What both kinds of request share; None means the server's default."""

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    """Extension: 0 means all tokens."""
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    """Extension, as in Hugging Face."""
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[tuple[str, ...], BeforeValidator(_stop_texts)] = ()
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_neutral_arguments(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for name, neutral in _NOT_SUPPORTED.items():
            if name in data and data[name] not in neutral:
                raise refusal(name, f"{name} is not supported by this server; leave it out")
        return {
            name: value
            for name, value in data.items()
            if name not in _NOT_SUPPORTED | dict.fromkeys(_IGNORED)
        }

    @model_validator(mode="after")
    def _stream_fits(self) -> "SamplingRequest":
        if self.stream and self.num_choices > 1:
            raise refusal("n", "expected 1 with stream=true; several choices come only without a stream")
        if self.stream_options is not None and not self.stream:
            raise refusal("stream_options", "expected only with stream=true")
        return self

    @property
    def num_choices(self) -> int:
        return self.n or 1

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class Message(Shape):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content_text)]
    name: str | None = None
    """Accepted and ignored."""

    def as_chat(self) -> dict[str, str]:
        """`developer` is OpenAI's newer name of `system`."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class ChatRequest(SamplingRequest):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """OpenAI's newer name of `max_tokens`."""

    @model_validator(mode="after")
    def _one_limit(self) -> "ChatRequest":
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise refusal("max_tokens", "expected only one of max_tokens and max_completion_tokens")
        return self


class CompletionRequest(SamplingRequest):
    prompt: Annotated[tuple[str | tuple[int, ...], ...], PlainValidator(_prompt_list)]

    @model_validator(mode="after")
    def _choices_fit(self) -> "CompletionRequest":
        if len(self.prompt) * self.num_choices > MAX_CHOICES:
            raise refusal("n", f"expected at most {MAX_CHOICES} answers over all prompts")
        if self.stream and len(self.prompt) > 1:
            raise refusal("prompt", "expected one prompt with stream=true")
        return self
