"""How a dataclass field becomes a flag: help text, short names, and what is shown for the default."""

from __future__ import annotations

from typing import Annotated, Any

import tyro

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""A flag that is given or not, without its `--no-` twin."""


def option(help: str, *, shown: str | None = None, short: str | None = None, also: tuple[str, ...] = ()) -> Any:
    """The tyro annotation of one flag: `shown` stands for its value in the help, `short` is a letter, `also` other names."""
    aliases = ([f"-{short}"] if short else []) + [f"--{name}" for name in also]
    return tyro.conf.arg(help=help, metavar=shown, help_behavior_hint="", aliases=aliases or None)
