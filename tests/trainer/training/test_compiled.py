"""Compiled pieces beside what stays between them: sharded weights, gradient checkpointing, document masks, chunks.

The compiler's back end here is `aot_eager`: everything but the generation of code, so that a test takes seconds.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from picochat_contract.configs import ModelConfig
from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import block_body
from picochat_trainer.model.kernels import FLEX
from picochat_trainer.training import compiled, distributed
from picochat_trainer.training.compiled import compile_loss, compile_pieces, eager, forget_compiled
from picochat_trainer.training.hardware import autocast
from support.trainings import base_context
from torch import Tensor
from torch._dynamo.utils import counters
from torch.distributed.tensor import DTensor
from torch.nn.attention import flex_attention as torch_flex

# The compiler warns inside itself, and fails where that is an error.
pytestmark = pytest.mark.filterwarnings("ignore")

VOCAB, BOS = 97, 3
CONFIG = ModelConfig(n_layer=3, n_head=4, n_kv_head=2, n_embd=32, sequence_len=16)


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compiled, "header_ahead", lambda device: nullcontext())  # `aot_eager` has no C++
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def single_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


TryOut = Callable[..., None]


@pytest.fixture
def try_out(monkeypatch: pytest.MonkeyPatch) -> TryOut:
    """Compile a model as training does, and see that this is when all graphs are made."""
    monkeypatch.setattr(compiled, "compile_pieces", partial(compile_pieces, backend="aot_eager"))

    def compile_now(model: GPT, context: StageContext, dtype: torch.dtype | None = None) -> None:
        assert compile_loss(model, [(4, 16)], context, dtype)
        assert counters["stats"]["unique_graphs"] == 2, dict(counters["stats"])
        assert all(parameter.grad is None for parameter in model.parameters())

    return compile_now


def build(logit_softcap: float = 0.0, **attributes: Any) -> GPT:
    model = GPT(CONFIG.model_copy(update={"logit_softcap": logit_softcap}), VOCAB)
    model.init_weights(1)
    for name, value in attributes.items():
        setattr(model, name, value)
    return model.train()


def some_tokens(seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (4, 16), generator=torch.Generator().manual_seed(seed))


def loss_and_gradients(model: GPT, seed: int = 0) -> dict[str, Tensor]:
    tokens_BT = some_tokens(seed)
    loss = model.loss(tokens_BT, tokens_BT.roll(-1, 1))
    loss.backward()
    found = {name: whole(parameter.grad) for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return {"loss": loss.detach(), **found}


def whole(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient.clone()


def check_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("sharded", "checkpointing", "document_token", "chunk", "cap"),
    [
        (False, False, None, None, 0.0),
        (False, True, None, None, 0.0),
        (False, False, BOS, None, 0.0),
        (False, False, None, 20, 0.3),
        (True, False, None, None, 0.0),
        (True, True, BOS, 20, 0.3),
    ],
)
def test_compiled_pieces_learn_what_the_plain_model_learns(
    sharded: bool,
    checkpointing: bool,
    document_token: int | None,
    chunk: int | None,
    cap: float,
    single_rank: None,
    try_out: TryOut,
    tmp_path: Path,
) -> None:
    plain = build(cap, document_token=document_token)
    model = build(
        cap, gradient_checkpointing=checkpointing, document_token=document_token, loss_chunk_tokens=chunk
    )
    distributed.shard(model, "cpu", "fsdp" if sharded else "ddp")
    try_out(model, base_context(tmp_path))
    for seed in range(3):
        check_equal(loss_and_gradients(model, seed), loss_and_gradients(plain, seed))
    assert not counters["graph_break"], dict(counters["graph_break"])
    # One graph for all blocks and steps, and one for the head. Autograd's graph of a block is traced with it.
    assert counters["stats"]["unique_graphs"] == 2, dict(counters["stats"])


def test_what_was_tried_out_in_bf16_is_what_steps_in_bf16_need(
    single_rank: None, try_out: TryOut, tmp_path: Path
) -> None:
    model = build()
    distributed.shard(model, "cpu", "fsdp", dtype=torch.bfloat16)
    try_out(model, base_context(tmp_path), torch.bfloat16)
    with autocast("cpu", torch.bfloat16):
        loss_and_gradients(model)
    assert counters["stats"]["unique_graphs"] == 2, dict(counters["stats"])


def test_a_copy_of_a_compiled_model_computes_with_its_own_weights() -> None:
    model = build()
    compile_pieces(model, "aot_eager")
    before = loss_and_gradients(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    check_equal(loss_and_gradients(other), before)


def test_forgotten_pieces_are_as_written() -> None:
    model = build()
    compile_pieces(model, "aot_eager")
    forget_compiled(model)
    assert all(block.body is block_body for block in model.model.layers)
    check_equal(loss_and_gradients(model), loss_and_gradients(build()))
    assert not counters["stats"]


def test_validation_compiles_nothing() -> None:
    model = build()
    compile_pieces(model, "aot_eager")
    with eager(), torch.no_grad():
        model.eval().token_losses(some_tokens(), some_tokens())
    assert not counters["stats"]


def test_a_flex_mask_of_each_micro_batch_is_an_input_of_one_compiled_block(
    monkeypatch: pytest.MonkeyPatch, try_out: TryOut, tmp_path: Path
) -> None:
    """On the CPU, where PyTorch lets only its generated kernel down, which has no backward pass."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *heads: None)
    model = build(document_token=BOS)
    monkeypatch.setattr(model, "_kernel", lambda device: FLEX)
    try_out(model, base_context(tmp_path))
    plain = build(document_token=BOS)
    for seed in range(3):
        check_equal(loss_and_gradients(model, seed), loss_and_gradients(plain, seed))
    assert counters["stats"]["unique_graphs"] == 2, dict(counters["stats"])
