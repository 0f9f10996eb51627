"""Single values put into a raw run spec: `--set base.max_steps=100` and options such as `--seed`."""

from collections.abc import Mapping
from typing import Any

import yaml

from picochat_contract.errors import Code, SpecError


def with_setting(raw: Mapping[str, Any], setting: str) -> dict[str, Any]:
    """`raw` with one `key.path=value` applied; the value is read as YAML."""
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise SpecError(
            Code.INVALID_VALUE,
            f"--set {setting!r}: expected key=value, such as base.max_steps=100",
            param="set",
        )
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SpecError(
            Code.NOT_YAML, f"--set {setting!r}: the value is not valid YAML", param=key.strip()
        ) from error
    return with_value(raw, key.strip(), value)


def with_value(raw: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """`raw` with the dotted `key` set; `raw` itself is left alone."""
    first, _, rest = key.partition(".")
    inner = raw.get(first)
    if rest and inner is not None and not isinstance(inner, Mapping):
        raise SpecError(
            Code.INVALID_VALUE, f"{key}: {first} is a value here, not a section that has {rest}", param=key
        )
    return {**raw, first: with_value(inner or {}, rest, value) if rest else value}
