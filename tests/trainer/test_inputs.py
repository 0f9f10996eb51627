"""What the fingerprint of the dataset stage covers of files outside the run folder."""

from pathlib import Path
from typing import Any

import pytest
from picochat_contract.data_configs import DatasetConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.inputs import source_digests


def file(path: Path, **options: Any) -> dict[str, Any]:
    return {"type": "file", "path": str(path), **options}


def digests(**values: Any) -> dict[str, str]:
    return source_digests(DatasetConfig.model_validate(values))


@pytest.mark.parametrize("name", ["chat", "eval", "preferences", "external"])
def test_every_file_of_rows_counts(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    given = {"arc": file(path)} if name == "external" else file(path)
    before = digests(**{name: given})
    assert f"file:{path}" in before
    path.write_text("two")
    assert digests(**{name: given}) != before


def test_a_folder_counts_with_what_is_read_of_it_and_the_names_of_the_rest(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.bin"):
        (tmp_path / name).write_text(name)
    source = {"sources": [file(tmp_path, exclude=["b.txt"])]}
    before = digests(**source)
    assert before.keys() == {f"listing:{tmp_path}", f"file:{tmp_path / 'a.txt'}"}
    (tmp_path / "b.txt").write_text("changed, but left out")
    (tmp_path / ".hidden").write_text("never read")
    assert digests(**source) == before
    (tmp_path / "d.bin").write_text("listed as left out")
    assert digests(**source) != before


def test_a_source_that_is_not_there_counts_once_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "later.txt"
    source = {"sources": [file(path, optional=True)]}
    before = digests(**source)
    path.write_text("here")
    assert digests(**source) != before


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"none\.txt") as caught:
        digests(sources=[file(tmp_path / "none.txt")])
    assert caught.value.code is Code.CORPUS_MISSING
