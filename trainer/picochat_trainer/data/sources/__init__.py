"""Reads the sources of a corpus, streaming: files and folders of every known kind, uploads, Python's own manual."""

from picochat_trainer.data.sources.files import SourceFile, open_sources
from picochat_trainer.data.sources.raw import decode_utf8, read_utf8

__all__ = ["SourceFile", "decode_utf8", "open_sources", "read_utf8"]
