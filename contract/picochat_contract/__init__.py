"""Values and pure rules that cross a process boundary. No torch, no I/O."""

from picochat_contract.version import __version__

__all__ = ["__version__"]
