"""The one chat template (ChatML, as Qwen2 writes it without a default system message) and its configuration file.

The Jinja text goes into `tokenizer_config.json`, where Hugging Face classes find it. Training and serving build
ids from the same turns instead (`Tokenizer.encode_chat`); a test keeps both equal.

Tools need no tokens of their own. What a tool returned is a turn of the role `tool`, and a role stands right after
`<|im_start|>`, which no text can produce: a user cannot forge it. Definitions stand in the system turn and calls in
the assistant's, each as JSON on one line between tag lines; JSON escapes line ends, so no value can close its tag.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from picochat_trainer.tokenizer.special import BOS, IM_END, IM_START, PAD, SPECIAL_TOKENS

ROLES: Final = ("system", "user", "assistant", "tool")
TOOLS_HEAD: Final = "# Tools\n\nYou may call these functions:\n<tools>"
TOOLS_TAIL: Final = (
    "\n</tools>\n\nCall one with its name and arguments as JSON:\n"
    '<tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call>'
)
CHAT_TEMPLATE: Final = (
    "{% set first_is_system = messages and messages[0]['role'] == 'system' %}"
    "{% if tools %}"
    "{{ '<|im_start|>system\\n' }}"
    "{% if first_is_system %}{{ messages[0]['content'] + '\\n\\n' }}{% endif %}"
    f"{{{{ {TOOLS_HEAD!r} }}}}"
    "{% for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}"
    f"{{{{ {TOOLS_TAIL!r} }}}}"
    "{{ '<|im_end|>' + '\\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% if not (loop.first and tools and first_is_system) %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{% if message['content'] or not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ '<tool_call>\\n{\"name\": ' + (call['function']['name'] | tojson) + ', \"arguments\": ' }}"
    "{{ (call['function']['arguments'] | tojson) + '}\\n</tool_call>' }}"
    "{% endfor %}"
    "{{ '<|im_end|>' + '\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

Message = Mapping[str, Any]
"""`role`, `content`, and on an assistant's turn `tool_calls` in OpenAI's shape with arguments as an object."""


def turns(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[tuple[str, str]]:
    """(role, text) of each turn as the template writes it: tools in the system turn, calls in the assistant's."""
    plain = [(message["role"], turn_text(message)) for message in messages]
    if not tools:
        return plain
    has_system = bool(plain) and plain[0][0] == "system"
    before = f"{plain[0][1]}\n\n" if has_system else ""
    offered = "".join(f"\n{_json(tool)}" for tool in tools)
    return [("system", f"{before}{TOOLS_HEAD}{offered}{TOOLS_TAIL}"), *plain[has_system:]]


def turn_text(message: Message) -> str:
    """Content of a turn with its tool calls."""
    content = message["content"] or ""
    calls = [
        f'<tool_call>\n{{"name": {_json(call["function"]["name"])}, '
        f'"arguments": {_json(call["function"]["arguments"])}}}\n</tool_call>'
        for call in message.get("tool_calls") or ()
    ]
    return "\n".join([*([content] if content else []), *calls])


def render_chat(
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    add_generation_prompt: bool = False,
) -> str:
    """The text that the template makes of `messages`; for display and for comparison."""
    return _template().render(
        messages=list(messages), tools=list(tools), add_generation_prompt=add_generation_prompt
    )


def tokenizer_config() -> dict[str, Any]:
    """Content of `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": IM_END,
        "pad_token": PAD,
        "additional_special_tokens": [IM_START, IM_END],
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {
            str(id): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for id, token in enumerate(SPECIAL_TOKENS)
        },
    }


@lru_cache(maxsize=1)
def _template() -> Template:
    assert IM_START in CHAT_TEMPLATE
    # The environment that transformers uses: same whitespace rules and JSON, no attribute access, no mutation.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = _json
    return environment.from_string(CHAT_TEMPLATE)


def _json(value: Any) -> str:
    """One line; Jinja's own filter would escape signs of HTML."""
    return json.dumps(value, ensure_ascii=False)
