"""Where `picochat data build` writes, and what it must not write over: sources, and files that are no earlier corpus."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from picochat_client.folders import is_excluded
from picochat_contract.data_configs import CORPUS_SUFFIXES, FileSource, Source, split_suffix
from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import file_sha256
from picochat_trainer.data.corpus import Places
from picochat_trainer.data.manifest import FORMAT

TEXT_SUFFIXES: Final = (".txt", ".text")


def corpus_places(out: Path, manifest: Path | None, report: Path | None) -> Places:
    """`out` is a folder, or by its extension the text file, which then is written whatever its size."""
    kind, compression = split_suffix(out.name)
    is_text = kind in TEXT_SUFFIXES and not compression and not out.is_dir()
    if not is_text and (compression or kind in (*CORPUS_SUFFIXES, ".json")) and not out.is_dir():
        raise ContractError(
            Code.INVALID_VALUE,
            f"--out {out}: expected a folder or a name that ends with {' or '.join(TEXT_SUFFIXES)}; the shards, the "
            "manifest and the report go beside it",
            param="--out",
        )
    folder = out.parent if is_text else out
    places = Places.below(folder)
    places = Places(
        folder=places.folder,
        text=out if is_text else places.text,
        manifest=manifest.resolve() if manifest else places.manifest,
        report=report.resolve() if report else places.report,
        text_limit_bytes=None if is_text else places.text_limit_bytes,
    )
    if len(set(_files(places))) < len(_files(places)):
        raise ContractError(
            Code.INVALID_VALUE,
            f"--out, --manifest and --report name one file twice: {', '.join(map(str, _files(places)))}",
            param="--out",
        )
    return places


def check_places(places: Places, sources: Sequence[Source], *, force: bool) -> None:
    """Raise where a source, or without `force` a file that is not of an earlier corpus, would be written over."""
    for folder in (places.folder, *places.folder.parents):
        if folder.exists() and not folder.is_dir():
            raise ContractError(
                Code.EXISTS, f"--out: {folder} is a file; expected a folder or nothing there", param="--out"
            )
    for source in sources:
        if isinstance(source, FileSource):
            _check_source(places, source)
    found = next((path for path in _files(places) if path.exists()), None)
    if found is not None and not force and not _is_earlier_corpus(places):
        raise ContractError(
            Code.EXISTS,
            f"{found} is there already and is not, or not as it was built, a part of an earlier corpus; choose another "
            "--out, or give --force to replace it",
            param="--out",
        )


def _check_source(places: Places, source: FileSource) -> None:
    path = Path(source.path).resolve()
    for made in (places.folder, *_files(places)):
        if made == path:
            raise ContractError(
                Code.EXISTS,
                f"{made} would be written over the source {source.path}; choose another --out",
                param="--out",
            )
        if not made.is_relative_to(path):
            continue
        name = made.relative_to(path).as_posix()
        is_hidden = any(part.startswith(".") for part in made.relative_to(path).parts)
        if not is_hidden and not is_excluded(name, source.include, source.exclude):
            raise ContractError(
                Code.EXISTS,
                f"{made} would lie in the source folder {source.path}, where the next build would read it; choose an "
                "--out outside of it",
                param="--out",
            )


def _is_earlier_corpus(places: Places) -> bool:
    try:
        manifest: dict[str, Any] = json.loads(places.manifest.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            return False
        digest = manifest["text_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return not places.text.exists() or (digest is not None and file_sha256(places.text) == digest)


def _files(places: Places) -> tuple[Path, ...]:
    return places.text, places.manifest, places.report
