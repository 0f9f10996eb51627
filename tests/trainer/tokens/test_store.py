"""Opening a token store, and refusing one that is damaged or made of something else."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store
from picochat_trainer.tokens.store import token_dtype


@pytest.fixture
def folder(tmp_path: Path, corpus: CorpusStore, tokenizer: Tokenizer) -> Path:
    return build_token_store(corpus, tokenizer, tmp_path / "tokens").store.folder


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_tokens_take_two_bytes_where_the_vocabulary_allows(vocab_size: int, dtype: str) -> None:
    assert token_dtype(vocab_size) == dtype


def test_documents_are_views_of_the_mapped_file(folder: Path) -> None:
    store = TokenStore.open(folder)
    document = store.document(1)
    assert document.dtype == np.uint16 and isinstance(document.base, np.memmap)
    assert len(document) == store.offsets[2] - store.offsets[1]


def test_a_missing_store_says_which_stage_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="run the tokenizer stage") as caught:
        TokenStore.open(tmp_path / "none")
    assert caught.value.code is Code.FILE_UNREADABLE


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": "other", "version": 1}'])
def test_a_file_that_is_no_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / "token_shards_manifest.json").write_text(content)
    with pytest.raises(ContractError, match="no manifest of picochat-tokens"):
        TokenStore.open(folder)


@pytest.mark.parametrize("name", ["tokens-000000.bin", "offsets.bin", "document_digests.bin"])
def test_a_file_that_was_cut_off_is_refused_at_once(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-2])
    with pytest.raises(ContractError, match=name) as caught:
        TokenStore.open(folder)
    assert caught.value.code is Code.INPUT_CHANGED


@pytest.mark.parametrize("name", ["tokens-000000.bin", "document_bytes.bin", "documents.parquet"])
def test_a_changed_byte_is_found_by_its_digest(folder: Path, name: str) -> None:
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(ContractError, match=name) as caught:
        TokenStore.open(folder).check_digests()
    assert caught.value.code is Code.INPUT_CHANGED


@pytest.mark.parametrize("name", ["corpus", "tokenizer"])
def test_another_corpus_or_tokenizer_is_refused_by_name(folder: Path, name: str) -> None:
    store = TokenStore.open(folder)
    store.refuse_other(corpus_sha256=store.corpus_sha256, tokenizer_sha256=store.tokenizer_sha256)
    with pytest.raises(ContractError, match=f"made with the {name} .*, the {name} here is 0000") as caught:
        store.refuse_other(**{f"{name}_sha256": "0" * 64})
    assert caught.value.code is Code.INPUT_CHANGED


def test_the_digest_stands_for_the_tokens_not_for_who_wrote_them(folder: Path) -> None:
    path = folder / "token_shards_manifest.json"
    manifest = json.loads(path.read_text())
    before = TokenStore.open(folder).sha256
    manifest["encoder"]["name"] = "another"
    path.write_text(json.dumps(manifest))
    assert TokenStore.open(folder).sha256 == before
    manifest["tokenizer_sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    assert TokenStore.open(folder).sha256 != before


def test_ids_of_a_few_documents_are_read_without_those_of_all(folder: Path) -> None:
    """10 million documents have ids of hundreds of megabytes; row groups without a wanted one are passed over."""
    rows = [{"document_id": f"id-{i}", "path": f"path {i} {'x' * 2_000}"} for i in range(20_000)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "documents.parquet", row_group_size=500)
    store = TokenStore.open(folder)
    wanted = [19_999, 3, 3, 501]
    pool = pa.system_memory_pool()
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        assert store.document_ids(wanted) == [f"id-{i}" for i in wanted]
        assert store.document_paths(wanted) == [rows[i]["path"] for i in wanted]
        assert store.document_ids([]) == []
        assert pool.max_memory() < 20_000_000  # all paths take 40 MB
    finally:
        pa.set_memory_pool(before)
