import json
from pathlib import Path

import pytest
import torch
from picochat_contract.canonical import digest_of
from picochat_contract.configs import ModelConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.atomic import previous_of
from picochat_trainer.training.checkpoint import (
    LossPoint,
    Metadata,
    TrainingState,
    Weights,
    load_resume,
    load_weights,
    open_checkpoint,
    restore_best,
    save_resume,
    save_weights,
)

CONFIG = ModelConfig(n_layer=1, n_head=2, n_embd=16, sequence_len=32)


def weights(value: float) -> Weights:
    return Weights(config=CONFIG, vocab_size=7, tensors={"a.weight": torch.full((2, 3), value)})


def save(directory: Path, value: float, step: int = 1) -> None:
    save_weights(directory, weights(value), Metadata(kind="last", step=step, losses={"val_loss": value}))


def state(step: int, best_step: int | None = None) -> TrainingState:
    return TrainingState(
        step=step,
        fingerprint={"config": {"learning_rate": 0.1}},
        position={"epoch": 0, "index": 3},
        losses=(LossPoint(step=1, val_loss=2.0, val_bpb=1.0),),
        best_step=best_step,
        best_val_loss=2.0,
        evals_without_improvement=0,
        num_nonfinite_steps=0,
        nonfinite_in_a_row=0,
        tokens_seen=10,
        elapsed_seconds=1.5,
        stop_reason=None,
    )


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def value_in(directory: Path) -> float:
    return float(load_weights(directory)[2]["a.weight"][0, 0])


def test_weights_come_back_as_they_were_saved(tmp_path: Path) -> None:
    save(tmp_path / "c", 1.5)
    config, vocab_size, tensors = load_weights(tmp_path / "c")
    assert (config, vocab_size) == (CONFIG, 7)
    assert torch.equal(tensors["a.weight"], torch.full((2, 3), 1.5))


def test_a_checkpoint_holds_safetensors_and_json_only(tmp_path: Path) -> None:
    save_resume(tmp_path / "c", weights(1.0), state(1), {"t": torch.zeros(2)}, None)
    assert {p.suffix for p in (tmp_path / "c").iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "metadata.json"])
def test_one_flipped_byte_is_found_and_previous_is_used(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "c", 1.0)
    save(tmp_path / "c", 2.0)
    assert value_in(tmp_path / "c") == 2.0
    flip_a_byte(tmp_path / "c" / name)
    assert value_in(tmp_path / "c") == 1.0
    assert "c.previous" in caplog.text and name in caplog.text


def test_every_byte_of_the_metadata_is_covered(tmp_path: Path) -> None:
    save(tmp_path / "c", 1.0, step=11)
    metadata = tmp_path / "c" / "metadata.json"
    metadata.write_text(metadata.read_text().replace('"step": 11', '"step": 12'))
    with pytest.raises(ContractError, match="own digest"):
        open_checkpoint(tmp_path / "c")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    save(tmp_path / "c", 1.0)
    (tmp_path / "c" / "model.safetensors").unlink()
    with pytest.raises(ContractError, match=r"model\.safetensors is missing") as caught:
        load_weights(tmp_path / "c")
    assert caught.value.code == Code.CHECKPOINT_CORRUPT


def test_both_corrupt_is_checkpoint_corrupt(tmp_path: Path) -> None:
    save(tmp_path / "c", 1.0)
    save(tmp_path / "c", 2.0)
    for folder in (tmp_path / "c", previous_of(tmp_path / "c")):
        flip_a_byte(folder / "model.safetensors")
    with pytest.raises(ContractError, match=r"c: .*; c\.previous: ") as caught:
        load_weights(tmp_path / "c")
    assert caught.value.code == Code.CHECKPOINT_CORRUPT


def test_no_checkpoint_is_file_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        load_weights(tmp_path / "c")
    assert caught.value.code == Code.FILE_UNREADABLE


def test_a_checkpoint_that_lists_no_weights_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c", 1.0)
    raw = json.loads((tmp_path / "c" / "metadata.json").read_text())
    assert set(raw["files"]) == {"model.safetensors", "config.json"}
    del raw["files"]["model.safetensors"], raw["metadata_sha256"]
    (tmp_path / "c" / "metadata.json").write_text(json.dumps({**raw, "metadata_sha256": digest_of(raw)}))
    with pytest.raises(ContractError, match="does not list"):
        open_checkpoint(tmp_path / "c")


def test_there_is_no_resume_point_before_the_first(tmp_path: Path) -> None:
    assert load_resume(tmp_path / "c") is None


def test_a_resume_point_comes_back_whole(tmp_path: Path) -> None:
    tensors = {"optimizer.step.a": torch.tensor(3.0), "rng.0.cpu": torch.arange(8, dtype=torch.uint8)}
    save_resume(tmp_path / "c", weights(1.0), state(5), tensors, None)
    point = load_resume(tmp_path / "c")
    assert point is not None and point.fallback is None
    assert point.state == state(5)
    assert torch.equal(point.tensors["rng.0.cpu"], tensors["rng.0.cpu"])


def test_a_corrupt_resume_point_falls_back_and_says_so(tmp_path: Path) -> None:
    for step in (5, 10):
        save_resume(tmp_path / "c", weights(step), state(step), {"t": torch.zeros(1)}, None)
    flip_a_byte(tmp_path / "c" / "training_state.safetensors")
    point = load_resume(tmp_path / "c")
    assert point is not None and point.state.step == 5
    assert point.fallback is not None and "training_state.safetensors" in point.fallback


def test_the_best_weights_are_restored_from_the_resume_point(tmp_path: Path) -> None:
    best = tmp_path / "best"
    save_weights(best, weights(1.0), Metadata(kind="best_validation", step=1))
    save_resume(tmp_path / "c", weights(2.0), state(5, best_step=1), {"t": torch.zeros(1)}, best)
    point = load_resume(tmp_path / "c")
    assert point is not None
    save(best, 9.0)  # another timeline's best
    restore_best(point, best, "best_validation")
    assert value_in(best) == 1.0
    assert open_checkpoint(best).metadata.losses == {"val_loss": 2.0, "val_bpb": 1.0}


def test_best_weights_that_are_right_are_left_alone(tmp_path: Path) -> None:
    best = tmp_path / "best"
    save_weights(best, weights(1.0), Metadata(kind="best_validation", step=1))
    save_resume(tmp_path / "c", weights(2.0), state(5, best_step=1), {"t": torch.zeros(1)}, best)
    point = load_resume(tmp_path / "c")
    assert point is not None
    inode = (best / "metadata.json").stat().st_ino
    restore_best(point, best, "best_validation")
    assert (best / "metadata.json").stat().st_ino == inode
