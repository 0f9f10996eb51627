"""Who makes a request: the key, its project and what it may do."""

from dataclasses import dataclass

ADMIN = "admin"


@dataclass(frozen=True, kw_only=True)
class Principal:
    key_id: str
    project_id: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """True if the key carries `scope`; `admin` includes all."""
        return scope in self.scopes or ADMIN in self.scopes
