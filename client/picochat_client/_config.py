"""Where the server is and which key to send. The only module of the client that reads the environment.

An explicit value wins over PICOCHAT_URL and PICOCHAT_API_KEY, they win over the file that an embedded server
wrote (`$PICOCHAT_HOME/client.json`, default `.picochat/client.json`). A key from the file goes to the file's
server only: it is never sent to another address.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from picochat_contract.errors import Code, ContractError

DEFAULT_URL = "http://127.0.0.1:7460"
CLIENT_FILE = "client.json"


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    url: str
    """Without a slash at the end."""
    api_key: str | None


def load_settings(
    url: str | None = None, api_key: str | None = None, *, environ: Mapping[str, str] | None = None
) -> ClientSettings:
    """Settle address and key; raise ContractError where one cannot be used."""
    env = os.environ if environ is None else environ
    file = _client_file(Path(env.get("PICOCHAT_HOME") or ".picochat") / CLIENT_FILE)
    settled_url = _checked_url(url or env.get("PICOCHAT_URL") or file.get("url") or DEFAULT_URL)
    key = api_key or env.get("PICOCHAT_API_KEY")
    if key is None and file and _checked_url(file.get("url") or DEFAULT_URL) == settled_url:
        key = file.get("api_key")
    return ClientSettings(url=settled_url, api_key=_checked_key(key))


def _client_file(path: Path) -> dict[str, str]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{path} should hold JSON with 'url' and 'api_key' but cannot be read ({error}); delete it and start "
            "`picochat up` again, or give --url and --key",
            param=str(path),
        ) from error
    if not isinstance(raw, dict):
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{path} should hold a JSON object with 'url' and 'api_key', not a {type(raw).__name__}",
            param=str(path),
        )
    return {key: value for key, value in raw.items() if isinstance(value, str)}


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.username or parts.password:
        raise ContractError(
            Code.INVALID_VALUE,
            f"server address {url!r}: expected http:// or https://, a host and perhaps a port, such as {DEFAULT_URL}",
            param="url",
        )
    return url.strip().rstrip("/")


def _checked_key(key: str | None) -> str | None:
    if not key or not key.strip():
        return None
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ContractError(
            Code.UNAUTHENTICATED,
            "the API key holds characters that no key has; copy it again, whole and without line breaks",
            param="api_key",
        )
    return key
