"""The chat in the terminal."""

import io
from collections.abc import Iterator

import pytest
from picochat_trainer.inference import Engine, SamplingParams, StreamPiece
from picochat_trainer.inference.conversation import Conversation, converse, printable, write_pieces

PARAMS = SamplingParams(max_new_tokens=6, temperature=1.0, seed=5)


def spy_on_prompts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    prompts: list[str] = []
    stream = engine.stream

    def record(prompt_ids: list[int], params: SamplingParams) -> Iterator[StreamPiece]:
        prompts.append(engine.tokenizer.decode(prompt_ids, skip_special=False))
        return stream(prompt_ids, params)

    monkeypatch.setattr(engine, "stream", record)
    return prompts


def text_of(pieces: Iterator[StreamPiece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_an_answer_is_that_of_the_engine(engine: Engine) -> None:
    ids, _ = engine.tokenizer.encode_chat([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    params = SamplingParams(max_new_tokens=6, temperature=1.0, seed=5, stop_ids=engine.control_ids)
    assert text_of(Conversation(engine, PARAMS).ask("Hi")) == engine.generate([ids], params)[0].text


def test_earlier_turns_are_part_of_the_prompt(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = spy_on_prompts(engine, monkeypatch)
    conversation = Conversation(engine, SamplingParams(max_new_tokens=1, temperature=0))
    answer = text_of(conversation.ask("A"))
    list(conversation.ask("B"))
    start = f"<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
    assert prompts[1].startswith(f"{start}<|im_start|>user\nB<|im_end|>\n")


def test_the_oldest_turns_are_forgotten_before_the_context_is_full(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = spy_on_prompts(engine, monkeypatch)
    conversation = Conversation(engine, PARAMS, system="S")
    for index in range(6):
        assert not any(piece.truncated for piece in conversation.ask(f"question {index}"))
    assert "question 5" in prompts[-1]
    assert "question 0" not in prompts[-1]
    assert prompts[-1].startswith("<|im_start|>system\nS<|im_end|>")


def test_reset_forgets_all(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = spy_on_prompts(engine, monkeypatch)
    conversation = Conversation(engine, PARAMS)
    list(conversation.ask("A"))
    conversation.reset()
    list(conversation.ask("A"))
    assert prompts[0] == prompts[1]


def test_the_terminal_loop_answers_resets_and_ends(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n\n/reset\nHi\n"))
    converse(Conversation(engine, SamplingParams(max_new_tokens=6, temperature=0)))
    shown = capsys.readouterr().out
    answers = [line.partition("picochat> ")[2] for line in shown.splitlines() if "picochat> " in line]
    assert len(answers) == 2
    assert answers[0] == answers[1] != ""
    assert "forgotten" in shown


def test_ctrl_c_stops_the_answer_only(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> Iterator[StreamPiece]:
        yield StreamPiece("some", 1, None, False)
        raise KeyboardInterrupt

    write_pieces(interrupted())
    assert capsys.readouterr().out == "some [stopped]\n"


def test_a_cut_prompt_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    write_pieces([StreamPiece("x", 1, "length", True)])
    assert "its first tokens were left out" in capsys.readouterr().err


def test_control_characters_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\x9b\r\n\tc") == "a\ufffd[2Jb\ufffd\ufffd\ufffd\n\tc"
