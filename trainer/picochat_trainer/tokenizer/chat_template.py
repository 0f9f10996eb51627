"""The one chat template (ChatML, as Qwen2 writes it without a default system message) and its configuration file.

The Jinja text goes into `tokenizer_config.json`, where Hugging Face classes find it. Training and serving build
ids from parts instead (`Tokenizer.encode_chat`); a test keeps both equal.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from picochat_trainer.tokenizer.special import BOS, IM_END, IM_START, PAD, SPECIAL_TOKENS

ROLES: Final = ("system", "user", "assistant")
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def render_chat(messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = False) -> str:
    """The text that the template makes of `messages`; for display and for comparison."""
    return _template().render(messages=list(messages), add_generation_prompt=add_generation_prompt)


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
    # The environment that transformers uses: same whitespace rules, no attribute access, no mutation.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(CHAT_TEMPLATE)
