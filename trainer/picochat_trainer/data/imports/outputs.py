"""What an import leaves beside its shards: the text in one file, `hf_import_report.json`, pack and recipe."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq
from picochat_contract.errors import Code, ContractError
from picochat_contract.packs import CorpusRecipe, DatasetPack

from picochat_trainer.atomic import sync_folder, write_json
from picochat_trainer.data.imports.journal import NAME as JOURNAL
from picochat_trainer.data.imports.rows import REPORTED_ROWS, SHARD, Imported, ImportRequest

REPORT: Final = "hf_import_report.json"
PACK: Final = "dataset_pack.json"
RECIPE: Final = "corpus_recipe.json"
TEXT_SUFFIXES: Final = (".txt", ".jsonl", ".parquet")


def check_out(path: Path) -> None:
    """Refuse an output of another kind than the three that are written."""
    if path.suffix not in TEXT_SUFFIXES:
        raise ContractError(
            Code.INVALID_VALUE,
            f"--out {str(path)!r}: expected a name that ends with {', '.join(TEXT_SUFFIXES)}",
            param="--out",
        )


def write_out(imported: Imported, path: Path) -> None:
    """All documents in one file: a record each, or plain text in which blank lines part them."""
    with _replacing(path) as file:
        match path.suffix:
            case ".parquet":
                _write_parquet(imported, file)
            case ".jsonl":
                for row, text in imported.texts():
                    file.write(json.dumps({"text": text, "row": row}, ensure_ascii=False).encode() + b"\n")
            case _:
                for number, (_, text) in enumerate(imported.texts()):
                    file.write(b"\n\n" * bool(number) + text.strip().encode())
                file.write(b"\n")


def import_report(imported: Imported, *, report_path: Path, out_path: Path | None) -> dict[str, Any]:
    """Content of `hf_import_report.json`; paths are relative to its folder, so that the whole can be moved."""
    request, shards = imported.request, imported.shards
    dataset = request.dataset
    rows = [asdict(row) for shard in shards for row in shard.rows]
    written = [shard for shard in shards if shard.path is not None]

    return {
        "dataset": dataset.dataset,
        "config_name": dataset.config,
        "split": dataset.split,
        "revision": imported.revision,
        "license": imported.license,
        "data_files": list(dataset.data_files),
        "text_column": request.text_column,
        "columns": list(imported.columns),
        "streaming": dataset.streaming,
        "max_rows": request.max_rows,
        "min_chars": request.min_chars,
        "out_path": _relative(out_path, report_path) if out_path else None,
        "report_path": report_path.name,
        "documents_dir": _relative(request.documents_dir, report_path),
        "document_shard_rows": request.document_shard_rows,
        "document_files_written": len(written),
        "rows_seen": imported.rows_seen,
        "rows_written": imported.num_documents,
        "rows_skipped": imported.rows_seen - imported.num_documents,
        "skipped_reasons": imported.skipped,
        "characters_written": imported.num_characters,
        "document_files": [
            {
                "path": _relative(request.documents_dir / shard.path, report_path),
                "num_documents": shard.num_documents,
                "num_characters": shard.num_characters,
                "sha256": shard.sha256,
            }
            for shard in written
            if shard.path is not None
        ],
        "rows": rows[:REPORTED_ROWS],
        "rows_reported": len(rows[:REPORTED_ROWS]),
        "rows_omitted": imported.rows_seen - len(rows[:REPORTED_ROWS]),
    }


def check_free(paths: Sequence[Path], *, force: bool, option: str) -> None:
    """Raise `exists` where an output is there already and may not be overwritten."""
    found = next((path for path in paths if path.exists()), None)
    if found is not None and not force:
        raise ContractError(
            Code.EXISTS, f"{found} is there already; give {option} to overwrite it", param=str(found)
        )


def check_own(request: ImportRequest, report: Path, out: Path) -> None:
    """Raise `exists` where the import would replace a text or shards that its earlier report does not name.

    What stands beside the journal of an unfinished import was looked at when that began.
    """
    folder = request.documents_dir
    if (folder / JOURNAL).exists():
        return
    earlier = _earlier(report)
    shards = sorted(path for path in folder.glob("shard-*") if SHARD.fullmatch(path.name))
    for found, key, named in ((shards[:1], "documents_dir", folder), ([out], "out_path", out)):
        if found and found[0].exists() and earlier.get(key) != _relative(named, report):
            raise ContractError(
                Code.EXISTS,
                f"{found[0]} is there already and {report} does not name it; choose another place, or give --force to "
                "overwrite it",
                param=str(found[0]),
            )


def write_dataset_file(path: Path, content: DatasetPack | CorpusRecipe) -> None:
    write_json(path, content.model_dump(mode="json", exclude_unset=True, exclude_none=True))


def relative_to(path: Path, file: Path) -> str:
    """`path` as a pack or recipe at `file` names it."""
    return Path(os.path.relpath(path.absolute(), file.absolute().parent)).as_posix()


def _earlier(report: Path) -> dict[str, Any]:
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _relative(path: Path, report: Path) -> str:
    return Path(os.path.relpath(path, report.parent)).as_posix()


def _write_parquet(imported: Imported, file: BinaryIO) -> None:
    schema = pa.schema([("text", pa.large_string()), ("row", pa.int64())])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for path in imported.shard_paths:
            writer.write_table(pq.read_table(path, schema=schema))


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)
