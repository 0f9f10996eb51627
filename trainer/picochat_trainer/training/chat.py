"""From chat rows to token ids with a loss mask, and the split that keeps a group's rows on one side."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Any, Literal, Protocol

from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.normalize import normal_form
from picochat_trainer.tokenizer.tokenizer import TrainOn
from picochat_trainer.tuning.rows import ChatRow

SplitMethod = Literal["group", "random"]

_UNCATEGORIZED = "none"
_HOLDOUT_OVERSHOOT = (
    1.25  # a group that would make validation larger than this times its target is passed over
)


class ChatTokenizer(Protocol):
    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        train_on: TrainOn = "all",
    ) -> tuple[list[int], list[int]]: ...


@dataclass(frozen=True, kw_only=True)
class Example:
    """One chat row as ids; `loss_mask[i]` says whether `ids[i]` is to be learned."""

    line: int
    """1-based line in the chat file."""
    category: str
    skill: str
    """The release skill of the category, or the category itself."""
    group: str | None
    prompt: str
    """What the user says, in normal form: equal prompts are one family, whatever their groups."""
    beginnings: tuple[str, ...] = ()
    """The same after each earlier turn of the user: a row that ends there is of this family too."""
    ids: tuple[int, ...]
    loss_mask: tuple[int, ...]

    @property
    def num_inputs(self) -> int:
        """Tokens that go into the model: the last id is only a target."""
        return len(self.ids) - 1

    @property
    def num_targets(self) -> int:
        return sum(self.loss_mask[1:])


@dataclass(frozen=True, kw_only=True)
class ChatSplit:
    train: tuple[Example, ...]
    val: tuple[Example, ...]
    method: SplitMethod
    skipped_long: tuple[int, ...]
    """Lines whose rows do not fit the context."""


def prepare_chat(
    rows: Sequence[ChatRow],
    tokenizer: ChatTokenizer,
    *,
    sequence_len: int,
    val_fraction: float,
    seed: int,
    train_on: TrainOn = "last",
) -> ChatSplit:
    """Encode the rows, leave out those that are too long, and hold out whole groups."""
    examples = [_example(row, tokenizer, train_on) for row in rows]
    fitting = [example for example in examples if example.num_inputs <= sequence_len]
    skipped = tuple(example.line for example in examples if example.num_inputs > sequence_len)
    if len(fitting) < 2:
        raise ContractError(
            Code.BAD_ROW,
            f"SFT needs at least 2 rows that fit the context of {sequence_len} tokens; {len(fitting)} of "
            f"{len(rows)} do. Give more or shorter rows, or train the base with a larger sequence_len",
            param="chat",
        )
    held_out, method = _hold_out(fitting, val_fraction, seed)
    return ChatSplit(
        train=tuple(e for e in fitting if e.line not in held_out),
        val=tuple(e for e in fitting if e.line in held_out),
        method=method,
        skipped_long=skipped,
    )


def _example(row: ChatRow, tokenizer: ChatTokenizer, train_on: TrainOn) -> Example:
    ids, mask = tokenizer.encode_chat(row.messages_list, tools=row.tools, train_on=train_on)
    # A prompt of signs only has no words; its own text then stands for it.
    said = [normal_form(text) or text.strip() for text in row.user_texts]
    *beginnings, prompt = accumulate(said, "{}\n{}".format)
    return Example(
        line=row.line,
        category=row.category or _UNCATEGORIZED,
        skill=row.skill or row.category or _UNCATEGORIZED,
        group=row.group,
        prompt=prompt,
        beginnings=tuple(beginnings),
        ids=tuple(ids),
        loss_mask=tuple(mask),
    )


def _hold_out(examples: Sequence[Example], val_fraction: float, seed: int) -> tuple[set[int], SplitMethod]:
    """Lines to hold out: whole families, skill by skill in turn, but never all rows of a category."""
    rng = random.Random(f"{seed} chat holdout")
    target = max(1.0, val_fraction * len(examples))
    groups = families(examples)
    left = Counter(example.category for example in examples)
    chosen: set[int] = set()
    for name in _in_turns(groups, rng):
        taken = Counter(example.category for example in groups[name])
        too_many = len(chosen) + len(groups[name]) > _HOLDOUT_OVERSHOOT * target
        if too_many or any(left[category] <= count for category, count in taken.items()):
            continue
        left -= taken
        chosen |= {example.line for example in groups[name]}
        if len(chosen) >= target:
            break
    if chosen:
        return chosen, "group"
    # One family, or each category has only one: single rows are all that can be held out.
    lines = [example.line for example in examples]
    return set(rng.sample(lines, min(round(target), len(lines) - 1))), "random"


def families(examples: Sequence[Example]) -> dict[int, list[Example]]:
    """Rows that share a group or a prompt, or of which one begins as another goes, directly or through others.

    By the line of the first.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    prompts = {example.prompt for example in examples}
    for example in examples:
        names = [f"prompt {beginning}" for beginning in example.beginnings if beginning in prompts]
        for name in [*names, *([] if example.group is None else [f"group {example.group}"])]:
            parent[root(name)] = root(f"prompt {example.prompt}")
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(root(f"prompt {example.prompt}"), []).append(example)
    return {members[0].line: members for members in found.values()}


def _in_turns(groups: dict[int, list[Example]], rng: random.Random) -> list[int]:
    """Family names in a seeded order that visits the skills in turn, so that each is held out in part."""
    by_skill: dict[str, list[int]] = {}
    for name in sorted(groups):
        by_skill.setdefault(groups[name][0].skill, []).append(name)
    queues = [by_skill[skill] for skill in sorted(by_skill)]
    rng.shuffle(queues)
    for queue in queues:
        rng.shuffle(queue)
    return [name for turn in zip_longest(*queues) for name in turn if name is not None]
