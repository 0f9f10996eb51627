"""DDP and FSDP2 by themselves, two ranks on gloo, against one process with all rows.

Losses, norms and weights differ by rounding only: sums over ranks add up in another order.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_contract.errors import Code, ContractError
from picochat_trainer.model import GPT
from picochat_trainer.training import distributed
from picochat_trainer.training.checkpoint import Metadata, Weights, open_checkpoint, save_weights
from picochat_trainer.training.first_weights import build_model, drawn, saved
from support.forks import run_ranks
from support.rank_steps import CONFIG, DEEP, LIMIT, ROWS, SEED, STEPS, VOCAB, batch, model_of, work

TOLERANCE = 1e-5  # nats
BF16_TOLERANCE = 2e-3  # the weights of norms are gathered in bf16, which autocast does not do


def on_two_ranks(folder: Path, *, is_compiled: bool = False) -> dict[str, Any]:
    run_ranks(work, (2, str(folder), is_compiled), 2)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return on_two_ranks(tmp_path_factory.mktemp("ranks"))


def assert_equal(one: dict[str, Any], other: dict[str, Any], tolerance: float = TOLERANCE) -> None:
    for name in ("losses", "val"):
        assert len(other[name]) == STEPS
        assert other[name] == pytest.approx(one[name], abs=tolerance)
    assert other["norms"] == pytest.approx(one["norms"], rel=20 * tolerance)
    assert other["weights"].keys() == one["weights"].keys()
    assert other["weights"] == pytest.approx(one["weights"], rel=100 * tolerance)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_that_accumulate_learn_what_one_process_learns(
    found: dict[str, Any], strategy: str
) -> None:
    assert min(found["one"]["norms"]) > LIMIT  # gradients were clipped
    assert_equal(found["one"], found[strategy])


def test_ddp_sends_gradients_once_a_step_however_many_micro_batches_it_has(found: dict[str, Any]) -> None:
    """The first batch is computed once more beforehand, for the graph (`distributed.Replicated`)."""
    assert found["talking"]["rounds"] == [2] + [1] * (STEPS - 1)


def test_ddp_knows_its_graph_leaves_buffers_alone_and_keeps_gradients_once(found: dict[str, Any]) -> None:
    talking = found["talking"]
    assert talking["static_graph"] and not talking["sends_buffers"]
    assert talking["gradient_as_bucket_view"] and talking["gradients_lie_in_buckets"]


def test_fsdp_shares_all_parameters_out(found: dict[str, Any]) -> None:
    model = model_of()
    assert found["fsdp"]["sharded"] and not found["ddp"]["sharded"]
    # One row of the embedding has no half: the first rank holds it.
    assert found["fsdp"]["local"] == (model.num_parameters() + model.config.n_embd) / 2
    assert found["fsdp"]["weights"].keys() == model.state_dict().keys()


def test_fsdp_gathers_an_untied_head_too(found: dict[str, Any]) -> None:
    assert_equal(*found["untied"])


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_blocks_that_are_computed_again_and_a_loss_in_chunks_learn_the_same(
    found: dict[str, Any], strategy: str
) -> None:
    assert_equal(found["one"], found["checkpointed"][strategy])


def test_fsdp_that_gathers_in_bf16_learns_what_ddp_with_autocast_learns(found: dict[str, Any]) -> None:
    assert_equal(*found["bf16"], tolerance=BF16_TOLERANCE)


def test_weights_that_differ_are_named_and_ddp_evens_them_out(found: dict[str, Any]) -> None:
    assert (
        "the weights of rank 1 differ from those of rank 0 at model.embed_tokens.weight" in found["unequal"]
    )
    assert found["mended"] == ""


def test_any_rank_tells_all_ranks(found: dict[str, Any]) -> None:
    assert found["any"] == [True, False]


@pytest.mark.parametrize("way", ["drawn", "read", "ddp"])
def test_all_ranks_begin_with_the_bits_of_one_process(found: dict[str, Any], way: str) -> None:
    ranks = found["beginnings"]["ranks"]
    assert [rank[way]["is_equal"] for rank in ranks] == [True, True]
    assert [rank[way]["num_exported"] for rank in ranks] == [deep_model().num_parameters(), 0]


@pytest.mark.parametrize("way", ["drawn", "read"])
def test_no_rank_of_fsdp_holds_more_than_its_part_and_a_parameter(found: dict[str, Any], way: str) -> None:
    model = deep_model()
    sizes = [parameter.nbytes for parameter in model.parameters()]
    for rank in found["beginnings"]["ranks"]:
        own = rank[way]["own"]
        # A parameter on its way, this rank's part of it, and perhaps what safetensors keeps of it.
        assert own <= rank[way]["built"] <= own + 3 * max(sizes)
        assert rank["whole first"] >= sum(sizes) > own + 6 * max(sizes)  # which would be noticed
    other = found["beginnings"]["ranks"][1]
    assert other[way]["export"] <= other[way]["own"] + 4 * max(sizes)  # gathering takes room for a few


def test_weights_that_came_out_unequal_end_the_start(found: dict[str, Any]) -> None:
    message = "the weights of rank 1 differ from those of rank 0 at model.embed_tokens.weight"
    assert message in found["beginnings"]["badly_sent"]


def test_one_process_begins_with_the_weights_that_were_saved(tmp_path: Path) -> None:
    made = build_model(DEEP, VOCAB, drawn(SEED), device="cpu")
    weights = Weights(config=DEEP, vocab_size=VOCAB, tensors=made.state_dict())
    save_weights(tmp_path / "saved", weights, Metadata(kind="last", step=0))
    opened = open_checkpoint(tmp_path / "saved")
    again = build_model(DEEP, VOCAB, saved(opened), device="cpu")
    for one, other in zip(made.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ContractError, match=r"they differ in model\.layers\.2\.\S+") as caught:
        build_model(CONFIG, VOCAB, saved(opened), device="cpu")
    assert caught.value.code is Code.CHECKPOINT_CORRUPT


def test_compiling_sharded_pieces_leaves_nothing_behind_in_the_first_step(found: dict[str, Any]) -> None:
    whole = found["compiling"][0]
    assert (whole["compiled"], whole["num_graphs"]) == (2, 2)  # ranks, and graphs on one of them
    assert_first_step(whole, found)


@pytest.mark.parametrize("broken_rank", [0, 1])
def test_where_one_rank_cannot_compile_none_waits_and_all_go_on_in_eager(
    found: dict[str, Any], broken_rank: int
) -> None:
    eager = found["compiling"][2 - broken_rank]
    assert eager["compiled"] == 0
    assert_first_step(eager, found)


def assert_first_step(step: dict[str, Any], found: dict[str, Any]) -> None:
    assert step["loss"] == pytest.approx(found["one"]["losses"][0], abs=TOLERANCE)
    assert step["norm"] == pytest.approx(found["one"]["norms"][0], rel=20 * TOLERANCE)


def deep_model() -> GPT:
    return model_of(n_layer=DEEP.n_layer)


@pytest.mark.slow
def test_compiled_blocks_are_sharded_alike(tmp_path: Path) -> None:
    found = on_two_ranks(tmp_path, is_compiled=True)
    assert_equal(found["one"], found["compiled"])


@pytest.mark.parametrize("limit", [0.0, 0.1, 1e9])
def test_clip_in_one_process_is_torchs(limit: float) -> None:
    mine, theirs = model_of(), model_of()
    for model in (mine, theirs):
        tokens = batch(0)[:ROWS]
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit or float("inf"))
    assert torch.equal(distributed.clip(mine, limit), expected)
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_one_process_shards_and_wraps_nothing() -> None:
    model = model_of()
    distributed.shard(model, "cpu", "fsdp")
    assert distributed.wrap(model, "cpu", "fsdp") is model
    assert distributed.full_tensors(model).keys() == model.state_dict().keys()
