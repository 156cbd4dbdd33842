"""A recipe file: a command's flags in TOML. What is given on the command line goes before what the file says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FLAG = "--config"
AS_JSON = ("optimizer-args",)
"""Flags that take a table; all other tables are headings."""


def with_recipe(words: Sequence[str]) -> list[str]:
    """The words of a command line with the flags of its `--config FILE` added, but for those that are there already.

    Raises ValueError for a file that cannot be read, or a value that is no flag's.
    """
    path = _config(words)
    if path is None:
        return list(words)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{FLAG} {path} cannot be read: {error.strerror or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{FLAG} {path} is not TOML: {error}") from None
    given = {_name(word) for word in words if word.startswith("--")}
    added = []
    seen: set[str] = set()
    for key, value in _flat(values):
        name = key.replace("_", "-")
        if name in seen:
            raise ValueError(f"{FLAG} {path} says {key} twice")
        seen.add(name)
        if name not in given:
            added += _words(name, value, path)
    return [*words, *added]


def _config(words: Sequence[str]) -> Path | None:
    for at, word in enumerate(words):
        if word == FLAG and at + 1 < len(words):
            return Path(words[at + 1])
        if word.startswith(f"{FLAG}="):
            return Path(word.split("=", 1)[1])
    return None


def _name(word: str) -> str:
    return word.split("=")[0].removeprefix("--").replace("_", "-")


def _flat(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and key.replace("_", "-") not in AS_JSON:
            yield from _flat(value)
        else:
            yield key, value


def _words(name: str, value: Any, path: Path) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    if isinstance(value, dict):
        return [f"--{name}", json.dumps(value)]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    if isinstance(value, (str, int, float)):
        return [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]
    raise ValueError(f"{FLAG} {path}: {name} is {value!r}; expected a number, a string, true, false or a list")
