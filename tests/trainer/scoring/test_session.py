"""How a session asks."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from picochat_contract.canonical import sha256_hex
from picochat_contract.data_configs import TokenizerConfig
from picochat_trainer.inference.batch import Completion
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.scoring.session import Session
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import train_tokenizer
from picochat_trainer.tuning.rows import EvalItem

TOKENIZER = Tokenizer(train_tokenizer(TokenizerConfig(type="byte"), []), digest=sha256_hex("bytes"))


class Parrot:
    """Answers "yes" and remembers how it was asked."""

    control_ids = TOKENIZER.special_ids

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        on_done: Callable[[int, Completion], None],
    ) -> list[Completion]:
        self.params = params
        return [Completion((), "yes", "stop", False) for _ in prompts]


def test_a_reply_ends_where_it_would_end_for_a_user() -> None:
    """A control token has no text: without a stop there, what follows it would be judged as part of the reply."""
    engine: Any = Parrot()
    session = Session(engine=cast(Engine, engine), tokenizer=TOKENIZER, max_new_tokens=8)
    assert [j.passed for j in session.run([EvalItem(user="Say yes.", must_include=("yes",))])] == [True]
    assert set(engine.params.stop_ids) == set(TOKENIZER.special_ids)
    assert engine.params.temperature == 0
