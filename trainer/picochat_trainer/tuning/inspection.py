"""What an inspection of a tuning file says: the values that `picochat data inspect` prints and preflight judges."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["chat", "eval", "preferences"]
Status = Literal["ready", "caution", "blocked"]


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LineProblem(Value):
    """A line that is no row."""

    line: int
    message: str


class Reason(Value):
    """Why the status is not `ready`."""

    status: Status
    check: str
    message: str


class Spread(Value):
    """How a count is spread over rows."""

    least: int
    mean: float
    median: float
    p90: float
    most: int


class Repeat(Value):
    """A row whose prompt is (nearly) that of an earlier row."""

    line: int
    earlier_line: int
    similarity: float
    prompt: str


class Repeats(Value):
    """Shares are of all rows; examples are the first of each kind."""

    num_exact: int
    exact_share: float
    num_near: int
    near_share: float
    exact_examples: tuple[Repeat, ...]
    near_examples: tuple[Repeat, ...]


class Families(Value):
    """Template families: groups without their running number, else prompts without numbers and quoted texts."""

    num_families: int
    largest: dict[str, int]
    """The ten with most rows."""
    largest_share: float


class ConstantAnswer(Value):
    """The answer that most answerable rows of a category share: saying nothing else would get that much right."""

    category: str
    answer: str
    num_rows: int
    share: float


class Shapes(Value):
    """Chat rows by what they hold."""

    num_pairs: int
    num_conversations: int
    num_with_system: int
    num_with_tools: int
    num_with_tool_calls: int
    turns: Spread


class Rules(Value):
    """Per rule the number of items that have it, and per number of rules the number of items that have so many."""

    num_items: dict[str, int]
    items_by_num_rules: dict[int, int]
    least_rules: int


class Pairs(Value):
    """Whether chosen and rejected answers differ in more than length and echo."""

    chosen_longer_share: float
    rejected_longer_share: float
    length_only_accuracy: float
    """Share of pairs that the better of `longer wins` and `shorter wins` gets right; equal lengths count half."""
    mean_length_ratio: float
    """Words of the chosen answer for each word of the rejected one, geometric mean."""
    chosen_echo_share: float
    rejected_echo_share: float
    """Share of rejected answers that only repeat the prompt."""
    content_difference: float
    """Mean share of the two answers' words that only one of them has."""
    num_reversed: int
    """Pairs whose chosen answer is another pair's rejected one, and the reverse, for the same prompt."""


class Inspection(Value):
    """One tuning file."""

    path: str
    kind: Kind
    status: Status
    reasons: tuple[Reason, ...]
    num_lines: int
    """Lines that are not blank."""
    num_rows: int
    num_invalid: int
    problems: tuple[LineProblem, ...]
    problems_omitted: int
    repeats: Repeats | None = None
    families: Families | None = None
    prompt_words: Spread | None = None
    answer_words: Spread | None = None
    prompt_tokens: Spread | None = None
    answer_tokens: Spread | None = None
    categories: dict[str, int] = {}
    category_entropy: float | None = None
    """0 for one category only, 1 where all have as many rows; None without rows."""
    skills: dict[str, int] = {}
    answer_styles: dict[str, int] = {}
    curriculum: str | None = None
    curriculum_stages: dict[str, int] = {}
    unanswerable_share: float | None = None
    constant_answers: tuple[ConstantAnswer, ...] = ()
    shapes: Shapes | None = None
    rules: Rules | None = None
    splits: dict[str, int] = {}
    levels: dict[str, int] = {}
    pairs: Pairs | None = None
