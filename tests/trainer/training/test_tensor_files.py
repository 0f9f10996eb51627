from pathlib import Path

import pytest
import torch
from picochat_trainer.atomic import file_sha256
from picochat_trainer.training.tensor_files import size_of, write_tensors
from safetensors import safe_open
from safetensors.torch import load_file, save_file

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


def test_the_library_reads_back_every_type_and_shape(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"{dtype}.{'x'.join(map(str, shape))}": (torch.randn(shape, generator=generator) * 100).to(dtype)
        for dtype in DTYPES
        for shape in ((), (0,), (3,), (2, 5))
    }
    digest = write_tensors(tmp_path / "t.safetensors", tensors, {"format": "pt"})
    found = load_file(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    assert digest == file_sha256(tmp_path / "t.safetensors")
    with safe_open(tmp_path / "t.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_weights_are_byte_for_byte_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {f"layer.{i}": torch.full((i + 1, 3), float(i)) for i in range(11)}
    write_tensors(tmp_path / "own", tensors, {"format": "pt"})
    save_file(tensors, tmp_path / "library", metadata={"format": "pt"})
    assert (tmp_path / "own").read_bytes() == (tmp_path / "library").read_bytes()


def test_a_file_longer_than_a_piece_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picochat_trainer.training.tensor_files._PIECE", 100)
    tensors = {"a": torch.arange(1000), "b": torch.arange(77, dtype=torch.uint8)}
    digest = write_tensors(tmp_path / "t", tensors, {})
    assert digest == file_sha256(tmp_path / "t")
    assert torch.equal(load_file(tmp_path / "t")["a"], tensors["a"])
    assert size_of(tensors) == 8077


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", {}, {})
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "t", {}, {})
