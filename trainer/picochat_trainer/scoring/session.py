"""Asks a model all items of an eval, in batches, and judges its replies."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.scoring.judgement import Judgement, Reply, judge
from picochat_trainer.scoring.overlap import corpus_support
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tuning.rows import EvalItem


@dataclass(frozen=True, kw_only=True)
class Session:
    """A model under examination."""

    engine: Engine
    tokenizer: Tokenizer
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 42

    def run(
        self,
        items: Sequence[EvalItem],
        *,
        corpus: Iterable[str] | None = None,
        on_done: Callable[[int], None] = lambda num_done: None,
    ) -> list[Judgement]:
        """Judge the reply to every item; `on_done` gets the number of replies so far.

        `corpus` gives the documents; it is read only where items ask for its support.
        """
        prompts = [self._prompt(item) for item in items]
        num_done = 0

        def count(index: int, completion: object) -> None:
            nonlocal num_done
            num_done += 1
            on_done(num_done)

        completions = self.engine.generate(prompts, self._params, on_done=count)
        support = self._support(items, [completion.text for completion in completions], corpus)
        return [
            judge(
                item,
                Reply(
                    text=completion.text,
                    finish_reason=completion.finish_reason,
                    truncated=completion.truncated,
                    label_log_probs=self._label_log_probs(item, prompt),
                    corpus_support=supported,
                ),
            )
            for item, prompt, completion, supported in zip(items, prompts, completions, support, strict=True)
        ]

    @property
    def _params(self) -> SamplingParams:
        return SamplingParams(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=self.seed,
            stop_ids=self.engine.control_ids,  # as in serving: what is judged is what a user would see
        )

    def _prompt(self, item: EvalItem) -> list[int]:
        ids, _ = self.tokenizer.encode_chat(item.messages_list, True, tools=item.tools)
        return ids

    def _label_log_probs(self, item: EvalItem, prompt: list[int]) -> dict[str, float] | None:
        """Mean log-probability per token of each label as the answer, so that long labels are not at a loss."""
        if not item.is_choice:
            return None
        labels = self.tokenizer.encode_batch(item.choice_labels)
        sums = self.engine.score(prompt, labels)
        return {
            label: total / len(ids)
            for label, ids, total in zip(item.choice_labels, labels, sums, strict=True)
        }

    def _support(
        self, items: Sequence[EvalItem], replies: Sequence[str], corpus: Iterable[str] | None
    ) -> list[float | None]:
        if corpus is None or not any(item.require_corpus_support for item in items):
            return [None] * len(items)
        return corpus_support(replies, corpus)
