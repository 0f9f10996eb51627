"""A thread reads ahead, and nobody can tell."""

import threading
from typing import Any

import pytest
import torch
from picochat_trainer.training.prefetch import DeviceStep, InlineFeed, PrefetchFeed, open_feed
from picochat_trainer.training.reader import BatchSource, StepBatch
from support.trainings import tiny_model, tiny_training


def source(**changes: Any) -> BatchSource:
    return tiny_training(tiny_model(), **changes).batches


def numbers(step: DeviceStep) -> list[Any]:
    return [(micro.tokens.tolist(), micro.targets.tolist(), micro.share) for micro in step.micro_batches]


def prefetchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


class Failing:
    """Gives two steps and then breaks."""

    def __init__(self, error: BaseException) -> None:
        self.reader = source()
        self.error = error
        self.num_given = 0

    @property
    def position(self) -> dict[str, int]:
        return self.reader.position

    def seek(self, position: dict[str, int]) -> None:
        self.reader.seek(position)

    def shapes(self) -> list[tuple[int, int]]:
        return self.reader.shapes()

    def next_step(self) -> StepBatch:
        if self.num_given == 2:
            raise self.error
        self.num_given += 1
        return self.reader.next_step()


def test_the_steps_are_those_of_the_reader() -> None:
    plain, ahead = InlineFeed(source(grad_accum_steps=2)), PrefetchFeed(source(grad_accum_steps=2), "cpu")
    for _ in range(60):  # over the end of an epoch
        assert numbers(plain.next_step()) == numbers(ahead.next_step())
        assert plain.position == ahead.position
    ahead.close()


def test_the_position_is_that_of_what_was_used_not_of_what_was_read() -> None:
    reader = source()
    feed = PrefetchFeed(reader, "cpu")
    start = feed.position
    assert start == {"epoch": 0, "index": 0}
    feed.next_step()
    feed.next_step()
    position = feed.position
    third = numbers(feed.next_step())
    feed.close()
    assert reader.position != position  # it has read on
    resumed = source()
    resumed.seek(position)
    assert numbers(InlineFeed(resumed).next_step()) == third


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_what_the_reader_raises_comes_out_at_its_step(error: BaseException) -> None:
    feed = PrefetchFeed(Failing(error), "cpu")
    feed.next_step()
    feed.next_step()
    with pytest.raises(type(error)):
        feed.next_step()
    feed.close()


def test_no_more_than_two_steps_are_read_ahead() -> None:
    failing = Failing(RuntimeError("a third step was read"))
    feed = PrefetchFeed(failing, "cpu")
    feed.close()
    assert failing.num_given <= 2


def test_the_thread_ends_when_it_is_closed_also_in_the_middle() -> None:
    before = len(prefetchers())
    feed = PrefetchFeed(source(), "cpu")
    feed.next_step()
    assert len(prefetchers()) == before + 1
    feed.close()
    assert len(prefetchers()) == before


def test_the_cpu_reads_inline() -> None:
    """Reading is far under a percent of a step there, and a thread would take a core from it."""
    assert isinstance(open_feed(source(), "cpu"), InlineFeed)


def test_shares_of_the_targets_add_up_to_one() -> None:
    step = InlineFeed(source(grad_accum_steps=3)).next_step()
    assert sum(micro.share for micro in step.micro_batches) == pytest.approx(1.0)
    assert step.shapes == [(4, 16)] * 3
    assert [tuple(micro.tokens.shape) for micro in step.micro_batches] == step.shapes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_on_cuda_are_those_of_the_reader() -> None:
    plain, ahead = InlineFeed(source()), open_feed(source(), "cuda:0")
    for _ in range(20):
        step = ahead.next_step()
        assert step.ready is not None and step.micro_batches[0].tokens.is_cuda
        assert numbers(plain.next_step()) == numbers(step)
    ahead.close()
