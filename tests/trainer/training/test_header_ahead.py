"""The header of C++ kernels, precompiled while the first block is being traced."""

import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_trainer.model import GPT
from picochat_trainer.training import compiled
from picochat_trainer.training.compiled import INDUCTOR_OPTIONS, compile_loss, header_ahead
from support.trainings import base_context
from torch._inductor import codecache, config
from torch._inductor.codecache import CppPythonBindingsCodeCache


def threads_of_it() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "header-ahead"]


def test_it_is_compiled_by_a_thread_with_the_options_of_the_others_and_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool | None] = []
    inside, may_end = threading.Event(), threading.Event()

    def load(arguments: list[str], code: str) -> None:
        seen.append(config.cpp.vec_isa_ok)
        inside.set()
        assert may_end.wait(60)
        seen.append(None)

    monkeypatch.setattr(CppPythonBindingsCodeCache, "load_pybinding", load)
    before = config.cpp.vec_isa_ok
    with header_ahead("cpu"):
        assert inside.wait(60)
        assert config.cpp.vec_isa_ok == before  # the options are that thread's alone
        may_end.set()
    assert seen == [INDUCTOR_OPTIONS["cpp.vec_isa_ok"], None]
    assert not threads_of_it()


def test_a_failure_of_it_is_no_failure_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(arguments: list[str], code: str) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(CppPythonBindingsCodeCache, "load_pybinding", load)
    with header_ahead("cpu"):
        pass
    assert not threads_of_it()


def test_a_compiler_that_is_not_there_is_no_failure_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._inductor", None)
    with header_ahead("cpu"):
        pass
    assert not threads_of_it()


def test_it_is_waited_for_where_tracing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CppPythonBindingsCodeCache, "load_pybinding", lambda arguments, code: None)
    with pytest.raises(ValueError, match="of the body"), header_ahead("cpu"):
        raise ValueError("of the body")
    assert not threads_of_it()


def test_kernels_of_a_gpu_have_no_such_header() -> None:
    with header_ahead("cuda:0"):
        assert not threads_of_it()


def test_a_training_has_it_compiled_while_the_model_is_tried_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []

    @contextmanager
    def ahead(device: str) -> Iterator[None]:
        told.append(f"begin {device}")
        yield
        told.append("end")

    monkeypatch.setattr(compiled, "header_ahead", ahead)
    monkeypatch.setattr(compiled, "compile_pieces", lambda model: told.append("compile"))
    monkeypatch.setattr(compiled, "_try_out", lambda *what: told.append("try out"))
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=32, sequence_len=16), 97)
    assert compile_loss(model, [(2, 16)], base_context(tmp_path), None)
    assert told == ["begin cpu", "compile", "try out", "end"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_kernels_of_a_compiled_function_use_that_header(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One precompiled header lies in an empty folder afterwards, and compiling a function adds no other."""
    monkeypatch.setattr(codecache, "_HEADER_DIR", str(tmp_path))
    monkeypatch.setattr(codecache, "_HEADER_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    codecache._precompile_header.cache_clear()
    CppPythonBindingsCodeCache.cache_clear()

    def headers() -> list[Path]:
        return sorted(path for path in tmp_path.rglob("*.gch"))

    try:
        with header_ahead("cpu"):
            pass
        [ahead] = headers()
        torch._dynamo.reset()
        torch.compile(lambda x: torch.tanh(x) + 1, options=INDUCTOR_OPTIONS)(torch.randn(64))
        assert len(list((tmp_path / "kernels").rglob("*.main.cpp"))) == 2  # of nothing, and of the function
        assert headers() == [ahead]
    finally:
        codecache._precompile_header.cache_clear()
        CppPythonBindingsCodeCache.cache_clear()
        torch._dynamo.reset()
