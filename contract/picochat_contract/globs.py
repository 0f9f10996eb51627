"""Globs on relative POSIX paths, as `.gitignore` reads them; `include` and `exclude` of a source use these.

`*` and `?` stay within one name, `**` crosses folders, `[a-z]` is a set of characters, `[!a-z]` its complement. A
pattern without `/` means that name at any depth; one with `/` starts at the source's folder. A pattern that matches
a folder matches everything below it. Case counts.
"""

import re
from collections.abc import Iterable
from functools import lru_cache


def matches(path: str, patterns: Iterable[str]) -> bool:
    """True if any of the patterns matches `path` or a folder that it lies in."""
    return any(_compiled(pattern).fullmatch(path) for pattern in patterns)


def checked_glob(pattern: str) -> str:
    """`pattern`, if it is a glob; raise ValueError otherwise."""
    try:
        _compiled(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no glob: {error.msg}") from error
    return pattern


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    names = pattern.strip("/").split("/")
    if len(names) == 1 and not pattern.startswith("/"):
        names = ["**", *names]
    regex = ""
    for name in names[:-1]:
        regex += "(?:[^/]+/)*" if name == "**" else f"{_name_regex(name)}/"
    regex += ".+" if names[-1] == "**" else f"{_name_regex(names[-1])}(?:/.*)?"
    return re.compile(regex, re.DOTALL)


def _name_regex(name: str) -> str:
    regex, at = "", 0
    while at < len(name):
        character = name[at]
        closing = name.find("]", at + 2) if character == "[" else -1
        if closing > 0:
            regex += _set_regex(name[at + 1 : closing])
            at = closing
        else:
            regex += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
        at += 1
    return regex


def _set_regex(characters: str) -> str:
    negated = characters.startswith("!")
    inner = re.sub(r"([\\\[\]^&~|])", r"\\\1", characters.removeprefix("!"))
    return f"(?!/)[{'^' if negated else ''}{inner}]"
