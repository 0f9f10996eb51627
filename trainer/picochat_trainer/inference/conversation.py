"""A chat in the terminal: remembers the turns that fit the context, shows the answer while it is generated."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

import typer

from picochat_trainer.inference.batch import StreamPiece
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams

HELP = "Type a message. /reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer."
# What a model writes must not steer the terminal: no control characters but line ends and tabs.
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Conversation:
    def __init__(self, engine: Engine, params: SamplingParams, *, system: str | None = None) -> None:
        self._engine = engine
        self._params = replace(params, stop_ids=engine.control_ids)
        self._system = [{"role": "system", "content": system}] if system else []
        self._turns: list[dict[str, str]] = []
        self._num_answers = 0

    def reset(self) -> None:
        self._turns.clear()

    def ask(self, text: str) -> Iterator[StreamPiece]:
        """Yield the answer; what of it came is remembered, also when the caller stops early."""
        self._turns.append({"role": "user", "content": text})
        # Another seed for each answer: the same question twice may be answered in two ways.
        params = replace(self._params, seed=self._params.seed + self._num_answers)
        self._num_answers += 1
        shown: list[str] = []
        try:
            for piece in self._engine.stream(self._prompt_ids(), params):
                shown.append(piece.text)
                yield piece
        finally:
            self._turns.append({"role": "assistant", "content": "".join(shown)})

    def _prompt_ids(self) -> list[int]:
        """Ids of the conversation; the oldest turns are forgotten where it would leave no room for the answer."""
        room = min(self._params.max_new_tokens, self._engine.context // 2)
        while True:
            ids, _ = self._engine.tokenizer.encode_chat(
                [*self._system, *self._turns], add_generation_prompt=True
            )
            if len(ids) + room <= self._engine.context or len(self._turns) == 1:
                return ids
            del self._turns[:2]


def converse(conversation: Conversation) -> None:
    """Read messages from the terminal until its end."""
    typer.echo(HELP)
    while True:
        try:
            text = input("\nyou> ").strip()
        except (EOFError, KeyboardInterrupt):
            typer.echo()
            return
        if text == "/exit":
            return
        if text == "/reset":
            conversation.reset()
            typer.echo("The conversation is forgotten.")
        elif text:
            typer.echo("picochat> ", nl=False)
            write_pieces(conversation.ask(text))


def write_pieces(pieces: Iterable[StreamPiece]) -> None:
    """Print an answer as it comes; Ctrl-C ends it."""
    truncated = False
    try:
        for piece in pieces:
            sys.stdout.write(printable(piece.text))
            sys.stdout.flush()
            truncated = piece.truncated
    except KeyboardInterrupt:
        typer.echo(" [stopped]", nl=False)
    typer.echo()
    if truncated:
        typer.echo("(the prompt is longer than the context: its first tokens were left out)", err=True)


def printable(text: str) -> str:
    return text.translate(_CONTROLS)
