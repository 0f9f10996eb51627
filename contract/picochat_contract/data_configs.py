"""Configs of the stages that make data: where a corpus comes from, how it is cleaned, what is trained on it."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, field_validator

from picochat_contract.canonical import SHA256_HEX
from picochat_contract.config_base import Config, Seed
from picochat_contract.globs import checked_glob

TEXT_SUFFIXES: Final = (".txt", ".text", ".md", ".rst", ".py")
ROW_SUFFIXES: Final = (".jsonl", ".csv", ".parquet")
"""One document per record, from the text field."""
MARKUP_SUFFIXES: Final = (".html", ".htm", ".pdf", ".docx")
COMPRESSIONS: Final = (".gz", ".bz2", ".xz", ".zst")
"""May follow any of the others, as in `.jsonl.gz`."""
CORPUS_SUFFIXES: Final = (*TEXT_SUFFIXES, *ROW_SUFFIXES, *MARKUP_SUFFIXES)
"""Files that a folder source means; anything else in the folder is left out and listed."""


def split_suffix(name: str) -> tuple[str, str]:
    """Kind and compression of a file name in lower case: the compression is empty where there is none.

    The kind is the last suffix, known or not; `a.JSONL.gz` gives `(".jsonl", ".gz")`, `notes` gives `("", "")`.
    """
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if len(suffixes) > 1 and suffixes[-1] in COMPRESSIONS:
        return suffixes[-2], suffixes[-1]
    return (suffixes[-1], "") if suffixes else ("", "")


Glob = Annotated[str, AfterValidator(checked_glob)]
BENCHMARK_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")


def checked_benchmark_name(name: str) -> str:
    """`name`, if it can be that of a file; raise ValueError otherwise."""
    if not BENCHMARK_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r}: expected a name of letters, digits, '_', '-' and '.', 63 at most, such as arc"
        )
    return name


DATASET_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"


class SourceOptions(Config):
    """What may be said about any source of documents."""

    label: str | None = Field(default=None, max_length=200)
    """Name of the source in reports and in the corpus."""
    license: str | None = Field(default=None, max_length=200)
    """Licence of its documents, such as `CC-BY-4.0`; carried into the corpus."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """Copies of each kept document per epoch; 0.5 keeps every other one, by a hash of its text."""
    max_documents: int | None = Field(default=None, ge=1)
    """Take at most so many documents from this source."""
    max_characters: int | None = Field(default=None, ge=1)
    """Stop taking documents once this many characters were kept."""


class PydocSource(SourceOptions):
    """Python's own reference manual, which every CPython carries: 79 documents, about 0.5 MB."""

    type: Literal["pydoc"] = "pydoc"
    license: str | None = Field(default="PSF-2.0", max_length=200)


class ReadOptions(SourceOptions):
    """How files of a source are read."""

    text_field: str | None = Field(default=None, max_length=200)
    """Field or column with the text, of .jsonl, .csv and .parquet; dots go into nested objects. None: `text`."""


class FileSource(ReadOptions):
    """A file or folder on the machine that reads it; `picochat-client submit` uploads it instead."""

    type: Literal["file"]
    path: str = Field(min_length=1)
    include: tuple[Glob, ...] = ()
    """Globs on paths below a folder, such as `docs/**/*.md`; empty means every file of a known kind."""
    exclude: tuple[Glob, ...] = ()
    """Globs of what to leave out; it is listed as `recipe_excluded`."""
    optional: bool = False
    """Where there is nothing at `path`, list it as `missing_source` instead of refusing the dataset."""
    reason: str | None = Field(default=None, max_length=500)
    """Why something is left out of this source, in words; the manifest shows it with the source."""


class ArtifactSource(ReadOptions):
    """A file that was uploaded before, by content digest."""

    type: Literal["artifact"]
    digest: str = Field(pattern=SHA256_HEX.pattern)
    """sha256 of the file, 64 hexadecimal digits."""
    name: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    """File name with its extensions, which say how it is read."""
    group: str | None = Field(default=None, max_length=200)
    """Uploads of one group are one source: its limits count over all of them. Set for the files of a folder."""


class LeftOutSource(SourceOptions):
    """What a client left out of an upload. It holds no documents: it is here for the corpus's report to list."""

    type: Literal["left_out"]
    path: str = Field(min_length=1, max_length=1000)
    reason: Literal["recipe_excluded", "missing_source", "link_outside_folder"]
    """As for files that are left out where they are read."""


class DatasetRef(ReadOptions):
    """A dataset that `picochat-client data push` registered; the server turns it into artifact sources."""

    type: Literal["dataset"]
    name: str = Field(pattern=DATASET_NAME)
    version: int | None = Field(default=None, ge=1, lt=2**31)
    """None means the newest."""


Source = Annotated[
    PydocSource | FileSource | ArtifactSource | LeftOutSource | DatasetRef, Field(discriminator="type")
]
FileRef = Annotated[FileSource | ArtifactSource | DatasetRef, Field(discriminator="type")]
"""One file of rows. Of a dataset it means the file in that role: its chat, eval or preference rows, or the external
benchmark of the same name."""


class CleaningConfig(Config):
    """What is done to documents between source and corpus. Everything that is dropped is listed with its reason."""

    unicode: Literal["nfc", "nfkc", "keep"] = "nfc"
    """Unicode normal form of the text."""
    exact_duplicates: bool = True
    """Remove documents whose text, after normalisation, is that of an earlier one."""
    near_duplicates: bool = True
    """Remove documents that are nearly an earlier one (MinHash over word shingles)."""
    near_threshold: float = Field(default=0.8, gt=0.4, lt=1)
    """Estimated Jaccard similarity of word 5-gram sets from which two documents count as near duplicates."""
    repeated_lines: bool = True
    """Within a document, keep one of a run of equal lines."""
    boilerplate_documents: int = Field(default=0, ge=0)
    """Remove lines that stand in at least this many documents; 0 removes none."""
    min_characters: int = Field(default=1, ge=1)
    """Documents that are shorter after cleaning are dropped."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes to keep, such as `en`; empty keeps all and asks for no language model."""
    min_language_probability: float = Field(default=0.5, ge=0, le=1)
    pii: Literal["keep", "mask", "drop"] = "keep"
    """E-mail and IP addresses, phone, card and account numbers: mask replaces them by `<EMAIL>` and the like,
    drop leaves the document out."""


class DatasetConfig(Config):
    sources: tuple[Source, ...] = Field(default=(PydocSource(),), min_length=1)
    """Where the corpus comes from, in order."""
    cleaning: CleaningConfig = CleaningConfig()
    min_score: float = Field(default=0, ge=0, le=100)
    """Documents whose quality score (0-100) is lower are dropped and listed."""
    chat: FileRef | None = None
    """Chat JSONL for SFT; without it release-skill rows are generated."""
    eval: FileRef | None = None
    """Eval JSONL; without it release-skill items are generated, disjoint from the SFT rows."""
    preferences: FileRef | None = None
    """Preference JSONL for DPO; compared with the eval like everything else."""
    external: dict[str, FileRef] = {}
    """External benchmarks by name (ARC or MMLU JSONL, MMLU CSV): compared with all training data."""
    sft_rows: int = Field(default=600, ge=32, le=200_000)
    """Generated SFT rows (only where `chat` is not given)."""
    eval_rows: int = Field(default=150, ge=16, le=20_000)
    """Generated eval items (only where `eval` is not given)."""
    answer_style: Literal["direct", "scratchpad"] = "direct"
    seed: Seed = 42

    @field_validator("external")
    @classmethod
    def _names_can_be_files(cls, external: dict[str, FileRef]) -> dict[str, FileRef]:
        for name in external:
            checked_benchmark_name(name)
        return external

    @property
    def references(self) -> "tuple[Source | FileRef, ...]":
        """Every source and every file of rows that is named."""
        rows = (self.chat, self.eval, self.preferences, *self.external.values())
        return (*self.sources, *(file for file in rows if file is not None))


class HonestyConfig(Config):
    """How texts are compared: data before training, and what was really trained on after it."""

    near_threshold: float = Field(default=0.75, gt=0.3, lt=1)
    """Share of an item's words that must align, in order, with a passage for it to count as an edited copy."""
    max_findings: int = Field(default=1_000, ge=10, le=100_000)
    """Findings listed per pair; all are counted."""


class TokenizerConfig(Config):
    type: Literal["char", "byte", "bpe", "hf_bpe"] = "bpe"
    """`hf_bpe` is another name of `bpe`."""
    vocab_size: int = Field(default=1024, ge=300, le=262_144)
    """Target size with special tokens (bpe only)."""
    min_freq: int = Field(default=2, ge=1)
    encoder: Literal["auto", "tokenizers", "tiktoken", "gigatoken"] = "auto"
    """What turns text into ids; auto takes the fastest that is installed and proved equal on a sample."""
    shard_tokens: int = Field(default=100_000_000, ge=1_000)
    """Tokens per shard file of the token store."""
    seed: Seed = 42
