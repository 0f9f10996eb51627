"""`picochat data hf-import|climbmix-import|smollm-import` on local files."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from picochat_client.packs import dataset_settings
from picochat_client.program import main
from picochat_contract.data_configs import DatasetConfig
from picochat_trainer.data.sources import open_sources


def texts(name: str, count: int) -> list[str]:
    return [f"Text {number} of {name}, long enough to be kept." for number in range(count)]


def write_parquet(path: Path, values: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": values}), path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def documents_of(pack: Path) -> list[str]:
    config = DatasetConfig.model_validate(dataset_settings(pack))
    files = open_sources(config.sources, artifact_path=Path)
    return [document.text for file in files if file.documents for document in file.documents()]


def test_hf_import_writes_text_records_report_and_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": n, "page": {"body": text}} for n, text in enumerate(texts("rows", 5))]
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"page": {"body": "x"}}\n'
    )
    out = tmp_path / "run/corpus.txt"
    arguments = [
        "--dataset",
        "json",
        "--data-files",
        str(tmp_path / "rows.jsonl"),
        "--text-column",
        "page.body",
    ]
    arguments += ["--out", str(out), "--document-shard-rows", "2", "--license", "CC0-1.0"]
    pack = ["--pack-out", str(tmp_path / "packs/pack.json"), "--pack-name", "rows"]
    assert main(["data", "hf-import", *arguments, *pack]) == 0
    assert out.read_text() == "\n\n".join(texts("rows", 5)) + "\n"
    assert documents_of(tmp_path / "packs/pack.json") == texts("rows", 5)
    assert read_json(tmp_path / "packs/pack.json") == {
        "name": "rows",
        "description": "5 documents of json, split train.",
        "corpus": {"input": "../run/corpus_documents"},
        "license": "CC0-1.0",
    }
    report = read_json(tmp_path / "run/hf_import_report.json")
    assert (report["rows_written"], report["skipped_reasons"]) == (5, {"below_min_chars": 1})
    assert report["document_files_written"] == 3
    assert "6 rows read: 5 documents, 195 characters, 1 below_min_chars" in capsys.readouterr().out
    assert main(["data", "hf-import", *arguments, *pack]) == 64
    assert "error [exists]" in capsys.readouterr().err
    assert main(["data", "hf-import", *arguments, *pack, "--pack-force", "--max-rows", "1"]) == 0
    assert documents_of(tmp_path / "packs/pack.json") == texts("rows", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "corpus.pdf"], "expected a name that ends with .txt, .jsonl, .parquet"),
        (["--out", "corpus.txt", "--split", "test"], "['train']"),
        (["--out", "corpus.txt", "--text-column", "body"], "its columns are 'text'"),
    ],
)
def test_hf_import_says_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_parquet(tmp_path / "hub/train.parquet", texts("hub", 3))
    assert main(["data", "hf-import", "--dataset", "hub", *arguments]) == 64
    assert message in capsys.readouterr().err
    assert not Path("corpus.txt").exists()


def test_hf_import_replaces_its_own_files_and_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "hub/train.parquet", texts("hub", 3))
    out, documents = tmp_path / "mine.txt", tmp_path / "shards"
    command = ["data", "hf-import", "--dataset", str(tmp_path / "hub"), "--out", str(out)]
    command += ["--documents-dir", str(documents)]
    out.write_text("written by hand")
    assert main(command) == 64
    assert "mine.txt is there already" in capsys.readouterr().err
    out.unlink()
    write_parquet(documents / "shard-000007.parquet", texts("other", 1))
    assert main(command) == 64
    assert "shard-000007.parquet is there already" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert [path.name for path in documents.iterdir()] == ["shard-000000.parquet"]
    assert main(command) == 0  # again: everything there is its own


def test_an_import_into_a_folder_spares_an_own_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "hub/shard_00000.parquet", texts("hub", 3))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/corpus.txt").write_text("written by hand")
    command = [
        "data",
        "climbmix-import",
        "--dataset",
        str(tmp_path / "hub"),
        "--out-dir",
        str(tmp_path / "out"),
    ]
    assert main(command) == 64
    assert "corpus.txt is there already" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0


def test_an_import_says_where_its_documents_stand_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "hub/train.parquet", texts("hub", 3))
    assert (
        main(["data", "hf-import", "--dataset", str(tmp_path / "hub"), "--out", str(tmp_path / "a.txt")]) == 0
    )
    assert f"picochat data preview --input {tmp_path / 'a_documents'}" in capsys.readouterr().out


def test_columns_that_a_stream_does_not_tell_are_those_of_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("id,body\n1,a text that is long enough\n")
    command = ["data", "hf-import", "--dataset", "csv", "--data-files", str(tmp_path / "rows.csv")]
    assert main([*command, "--out", str(tmp_path / "a.txt")]) == 64
    assert "its columns are 'id', 'body'" in capsys.readouterr().err


def test_climbmix_import_reads_the_shards_that_were_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        write_parquet(tmp_path / f"hub/shard_{index:05d}.parquet", texts(f"shard {index}", 4))
    arguments = [
        "data",
        "climbmix-import",
        "--dataset",
        str(tmp_path / "hub"),
        "--out-dir",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--shards", "2", "--max-rows", "0"]) == 0
    pack = tmp_path / "out/dataset_pack.json"
    assert documents_of(pack) == [*texts("shard 0", 4), *texts("shard 1", 4)]
    assert read_json(pack)["license"] == "cc-by-nc-4.0"
    assert (tmp_path / "out/corpus.txt").exists()
    assert read_json(tmp_path / "out/hf_import_report.json")["data_files"] == [
        "shard_00000.parquet",
        "shard_00001.parquet",
    ]
    assert main(arguments) == 64
    assert "give --force to overwrite" in capsys.readouterr().err
    assert main([*arguments, "--force", "--max-rows", "2"]) == 0
    assert documents_of(pack) == texts("shard 0", 2)


SMOLLM_CARD = """---
configs:
- config_name: cosmopedia-v2
  data_files: cosmopedia-v2/*.parquet
- config_name: fineweb-edu-dedup
  data_files: fineweb-edu-dedup/*.parquet
---
"""


@pytest.fixture
def smollm(tmp_path: Path) -> list[str]:
    """The command on a local copy with three rows in each subset."""
    for name in ("cosmopedia-v2", "fineweb-edu-dedup"):
        write_parquet(tmp_path / f"hub/{name}/a.parquet", texts(name, 3))
    (tmp_path / "hub/README.md").write_text(SMOLLM_CARD)
    return ["data", "smollm-import", "--dataset", str(tmp_path / "hub"), "--out-dir", str(tmp_path / "out")]


def test_smollm_import_makes_a_weighted_recipe_of_its_subsets(smollm: list[str], tmp_path: Path) -> None:
    subsets = ["--subset", "fineweb-edu-dedup=0.5", "--subset", "cosmopedia-v2"]
    assert main([*smollm, *subsets, "--max-rows", "2"]) == 0
    pack = tmp_path / "out/dataset_pack.json"
    assert documents_of(pack) == [*texts("fineweb-edu-dedup", 2), *texts("cosmopedia-v2", 2)]
    recipe = read_json(tmp_path / "out/corpus_recipe.json")
    assert [(s["label"], s["weight"], s["license"]) for s in recipe["sources"]] == [
        ("fineweb-edu-dedup", 0.5, "odc-by"),
        ("cosmopedia-v2", 1.0, "odc-by"),
    ]
    report = read_json(tmp_path / "out/cosmopedia-v2/hf_import_report.json")
    assert (report["config_name"], report["rows_written"]) == ("cosmopedia-v2", 2)


@pytest.mark.parametrize("subset", ["python-edu", "cosmopedia-v2=0", "cosmopedia-v2=much"])
def test_smollm_import_refuses_other_subsets_and_weights(
    smollm: list[str], capsys: pytest.CaptureFixture[str], subset: str
) -> None:
    assert main([*smollm, "--subset", subset]) == 64
    assert "expected NAME or NAME=WEIGHT" in capsys.readouterr().err
