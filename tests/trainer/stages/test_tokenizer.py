"""The tokenizer stage."""

from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tokenizer import Tokenizer


@pytest.mark.parametrize("type", ["char", "byte", "bpe", "hf_bpe"])
def test_every_type_writes_a_tokenizer_and_measures_it(tmp_path: Path, run_stage: Any, type: str) -> None:
    (tmp_path / layout.CORPUS).write_text("the cat sat on the mat, again and again\n" * 50)
    metrics = run_stage("tokenizer", {"type": type, "vocab_size": 300})
    tokenizer = Tokenizer.load(tmp_path / layout.TOKENIZER)
    assert metrics["vocab_size"] == tokenizer.vocab_size
    if type in ("char", "byte"):
        assert metrics["bytes_per_token"] == 1.0
    else:
        assert metrics["bytes_per_token"] > 1.5


def test_a_missing_corpus_is_an_error(run_stage: Any) -> None:
    with pytest.raises(ContractError) as caught:
        run_stage("tokenizer")
    assert caught.value.code is Code.CORPUS_MISSING
