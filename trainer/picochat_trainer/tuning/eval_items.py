"""Eval items: a prompt and the rules that a reply must meet. An item without rules could only be passed: an error."""

from typing import Any, Final, Self

from pydantic import AliasChoices, ConfigDict, Field, model_validator

from picochat_trainer.scoring.matching import holds
from picochat_trainer.tuning.row import TaskRow

MIN_STEM_WORDS: Final = 8


class EvalItem(TaskRow):
    """One eval prompt with its rules. Unknown keys are refused: a misspelt rule must not vanish."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="forbid")

    user: str
    system: str | None = None
    """What stands in the system turn before the prompt."""
    stem: str | None = None
    """The question without its options and instructions, where `user` holds more: what data are searched for."""
    must_include: tuple[str, ...] = ()
    expected: str | None = None
    """Shorthand: also a required phrase and the reference."""
    must_include_any: tuple[tuple[str, ...], ...] = ()
    """Groups; of each at least one phrase."""
    must_not_include: tuple[str, ...] = ()
    split: str | None = Field(default=None, validation_alias=AliasChoices("split", "eval_split"))
    level: str | None = Field(default=None, validation_alias=AliasChoices("level", "eval_level"))
    robustness_variant: str | None = None
    reference_answer: str | None = Field(
        default=None, validation_alias=AliasChoices("reference_answer", "reference")
    )
    required_entities: tuple[str, ...] = Field(
        default=(), validation_alias=AliasChoices("required_entities", "entities")
    )
    min_words: int | None = Field(default=None, ge=0)
    max_words: int | None = Field(default=None, ge=1)
    min_chars: int | None = Field(default=None, ge=0)
    max_chars: int | None = Field(default=None, ge=1)
    require_corpus_support: bool = False
    choice_labels: tuple[str, ...] = ()
    correct_choice: str | None = Field(
        default=None, validation_alias=AliasChoices("correct_choice", "answer_choice")
    )
    normalized_answer: str | None = Field(
        default=None, validation_alias=AliasChoices("normalized_answer", "final_answer", "expected_answer")
    )
    normalized_answers: tuple[str, ...] = Field(
        default=(),
        validation_alias=AliasChoices("normalized_answers", "answer_aliases", "final_answer_aliases"),
    )
    normalized_answer_required: bool = False

    @property
    def messages_list(self) -> list[dict[str, Any]]:
        """The turns before the reply, as `Tokenizer.encode_chat` takes them."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.user}]

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """Tools that the system turn offers; items of a file have none."""
        return ()

    @property
    def prompt_text(self) -> str:
        """What training data are searched for: the question, without options that other copies write differently.

        A short one, such as `Which of these is true?`, is asked in many places and keeps its options.
        """
        return self.stem if self.stem and len(self.stem.split()) >= MIN_STEM_WORDS else self.user

    @property
    def answer_text(self) -> str | None:
        """The right answer in words, where the item gives it; the bare label of an option is none."""
        answer = self.reference or next(iter(self.accepted_answers), None)
        return None if answer in self.choice_labels else answer

    @property
    def required_phrases(self) -> tuple[str, ...]:
        """`must_include` and, where there is one, `expected`."""
        return self.must_include if self.expected is None else (*self.must_include, self.expected)

    @property
    def reference(self) -> str | None:
        return self.reference_answer or self.expected

    @property
    def is_choice(self) -> bool:
        return bool(self.choice_labels)

    @property
    def accepted_answers(self) -> tuple[str, ...]:
        """Final answers that count as right; empty where the answer is not judged that way."""
        if self.normalized_answer is None:
            return self.normalized_answers
        return (self.normalized_answer, *self.normalized_answers)

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules that can make a reply fail; length bounds alone are none."""
        present = {
            "must_include": self.required_phrases,
            "must_include_any": self.must_include_any,
            "must_not_include": self.must_not_include,
            "required_entities": self.required_entities,
            "normalized_answer": self.normalized_answer_required,
            "choice": self.is_choice,
            "corpus_support": self.require_corpus_support,
            "unanswerable": not self.answerable,
        }
        return tuple(name for name, value in present.items() if value)

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if self.is_choice != (self.correct_choice is not None):
            raise ValueError("choice_labels and correct_choice go together")
        if self.is_choice:
            labels = self.choice_labels
            if len(labels) < 2 or len(set(labels)) != len(labels) or not all(map(str.strip, labels)):
                raise ValueError(f"choice_labels must be two or more different labels; got {list(labels)}")
            if self.correct_choice not in labels:
                raise ValueError(f"correct_choice {self.correct_choice!r} is none of {list(labels)}")
        if self.normalized_answer_required and not self.accepted_answers:
            raise ValueError("normalized_answer_required needs a normalized_answer")
        phrases = [
            *self.required_phrases,
            *self.must_not_include,
            *self.required_entities,
            *self.accepted_answers,
        ]
        if not all(phrase.strip() for phrase in phrases):
            raise ValueError("a phrase to look for must not be empty")
        if not all(group and all(phrase.strip() for phrase in group) for group in self.must_include_any):
            raise ValueError("each group of must_include_any needs at least one phrase")
        self._check_bounds()
        self._check_forbidden()
        if not self.rules:
            raise ValueError(
                "the item has no rule, so any reply would pass: give must_include, must_include_any, "
                "must_not_include, required_entities, a required normalized_answer, choice_labels, "
                "require_corpus_support, or answerable: false"
            )
        return self

    def _check_bounds(self) -> None:
        for unit in ("words", "chars"):
            least, most = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{unit} {least} is more than max_{unit} {most}: no reply can pass")

    def _check_forbidden(self) -> None:
        """Each required phrase, or one of each group, must be free of forbidden ones."""
        required = [(phrase,) for phrase in (*self.required_phrases, *self.required_entities)]
        for group in (*required, *self.must_include_any):
            clashes = [
                next((bad for bad in self.must_not_include if holds(phrase, bad)), None) for phrase in group
            ]
            if all(clash is not None for clash in clashes):
                raise ValueError(
                    f"{group[0]!r} holds {clashes[0]!r}, which must_not_include forbids: no reply can pass"
                )
