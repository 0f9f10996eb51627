"""The special tokens that every tokenizer of this project has, under the ids 0 to 3.

They are inserted by id only: the same text inside user data stays ordinary text (see `Tokenizer.encode`).
"""

from typing import Final

BOS: Final = "<|endoftext|>"  # starts every document of a corpus
IM_START: Final = "<|im_start|>"
IM_END: Final = "<|im_end|>"
PAD: Final = "<|pad|>"
SPECIAL_TOKENS: Final = (BOS, IM_START, IM_END, PAD)
