import pytest
import torch
from picochat_trainer.training.staging import Staging


def test_copies_stay_as_they_were_and_their_buffers_are_used_again() -> None:
    staging = Staging()
    tensors = {"a": torch.arange(6.0).view(2, 3).t(), "step": torch.tensor(3.0)}
    first = staging.copy(tensors).tensors()
    for tensor in tensors.values():
        tensor.add_(1)
    assert torch.equal(first["a"], torch.arange(6.0).view(2, 3).t()) and first["step"] == 3
    assert first["a"].is_contiguous()
    second = staging.copy(tensors).tensors()
    assert second["a"].data_ptr() == first["a"].data_ptr()
    assert torch.equal(second["a"], tensors["a"])


def test_a_tensor_of_another_shape_gets_a_buffer_of_its_own_and_one_that_is_gone_leaves_none() -> None:
    staging = Staging()
    staging.copy({"a": torch.ones(2), "b": torch.ones(3)})
    found = staging.copy({"a": torch.ones(5, dtype=torch.float64)}).tensors()
    assert found.keys() == {"a"} and found["a"].shape == (5,) and found["a"].dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copies_from_a_gpu_are_of_the_moment_of_the_call() -> None:
    staging = Staging()
    for value in range(3):
        tensors = {str(i): torch.full((1 << 22,), float(value), device="cuda") for i in range(8)}
        staged = staging.copy(tensors)
        for tensor in tensors.values():
            tensor.fill_(-1.0)  # what the next step does, in stream order
        del tensors
        torch.full((1 << 25,), -2.0, device="cuda")  # takes the memory that has become free
        found = staged.tensors()
        assert all(t.is_pinned() and bool((t == value).all()) for t in found.values())
