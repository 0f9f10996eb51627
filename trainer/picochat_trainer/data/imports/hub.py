"""Opens one split of a Hugging Face dataset, on the hub or on this disk, and goes through its rows from any row on.

`datasets` is imported here and nowhere else. Dataset scripts are never run: versions 4 and later know none.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from picochat_contract.errors import Code, ContractError

SHOWN_FILES: Final = 3


@dataclass(frozen=True, kw_only=True)
class DatasetRequest:
    """What to open."""

    dataset: str
    """Name on the hub, a folder, or a file kind (`json`, `parquet`, `csv`, `text`) together with `data_files`."""
    config: str | None = None
    split: str = "train"
    data_files: tuple[str, ...] = ()
    revision: str | None = None
    """Branch, tag or commit on the hub; it is pinned to a commit when it is opened."""
    streaming: bool = True
    """False downloads and converts the whole split first."""

    def __str__(self) -> str:
        """As messages name it."""
        files = f" ({', '.join(self.data_files[:SHOWN_FILES])})" if self.data_files else ""
        return f"{self.dataset}{files}"


class HubRows:
    """The rows of an opened split, in order."""

    def __init__(self, dataset: Any, *, revision: str | None, identity: str, license: str | None) -> None:
        self._dataset = dataset
        self.revision = revision
        """Commit on the hub; None for local files."""
        self.identity = identity
        """Changes whenever the rows may have changed: commit or digest of the files, config, version of `datasets`."""
        self.license = license
        """As the hub's card says it."""
        self._row_columns: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """As the split says, else those of the first row read; empty where neither is known."""
        return tuple(self._dataset.column_names or self._row_columns)

    @contextmanager
    def after(self, num_rows: int, position: Any = None) -> Iterator[Iterator[dict[str, Any]]]:
        """Yield the rows that follow the first `num_rows`; with the `position` from there without reading those."""
        dataset = self._dataset
        if position is not None and hasattr(dataset, "load_state_dict"):
            dataset.load_state_dict(position)
        elif num_rows:
            at_end = (
                hasattr(dataset, "num_rows") and num_rows >= dataset.num_rows
            )  # beyond which skip() raises
            dataset = () if at_end else dataset.skip(num_rows)
        rows = self._noted(dataset)
        try:
            yield rows
        finally:
            rows.close()  # else its file readers end in noise when the interpreter exits

    def _noted(self, dataset: Any) -> Generator[dict[str, Any]]:
        for row in dataset:
            self._row_columns = self._row_columns or tuple(row)
            yield row

    def position(self) -> Any:
        """Where reading stands, as JSON; None where rows can be skipped at no cost."""
        return self._dataset.state_dict() if hasattr(self._dataset, "state_dict") else None


def open_dataset(request: DatasetRequest) -> HubRows:
    """Open a split; raise ContractError, which lists the splits or configs that there are where the name is wrong."""
    try:
        import datasets
    except ImportError as error:
        raise ContractError(
            Code.MISSING_DEPENDENCY,
            "importing a Hugging Face dataset needs the datasets library: pip install 'picochat[hf]'",
            param="dataset",
        ) from error
    options: dict[str, Any] = {"data_files": list(request.data_files)} if request.data_files else {}
    try:
        builder = datasets.load_dataset_builder(
            request.dataset, request.config, revision=request.revision, **options
        )
        if request.streaming:
            dataset = builder.as_streaming_dataset(request.split)
        else:
            builder.download_and_prepare()
            dataset = builder.as_dataset(request.split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ContractError(
            Code.CORPUS_MISSING,
            f"cannot open split {request.split!r} of the dataset {request.dataset!r}: {error}",
            param="dataset",
        ) from error
    on_hub = bool(builder.repo_id)
    return HubRows(
        dataset,
        revision=builder.hash if on_hub else None,
        identity=f"{builder.config_id} {builder.hash} {datasets.__version__}",
        license=_card_license(builder.repo_id, builder.hash) if on_hub else None,
    )


def _card_license(name: str, revision: str) -> str | None:
    from huggingface_hub import HfApi

    try:
        card = HfApi().dataset_info(name, revision=revision).card_data
    except OSError:  # also the library's HTTP errors; then the licence stays unknown
        return None
    found = card.get("license") if card else None
    return ", ".join(found) if isinstance(found, list) else found
