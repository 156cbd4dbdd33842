"""Every figure, table and picture of the repository that depends on the embedded weights, and what makes each again.

`make figures` makes all that does not stand as made with the weights in the tree, in the order of the table below, and
`make figures FIGURES="card reasoning"` some. A figure that was stopped goes on at the command where it was. One that
fails is told at the end and does not hold up the others. Each marked part carries the first digits of the weights'
digest, `Weights: 1a2b3c4d`; `--check` fails where they are those of other weights, and `--withdraw` takes such figures
out, so that none of other weights is read while those of the present ones are still to be made.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

import tyro

from chronoedit.ledger import Ledger
from figures_table import FIGURES, Figure
from pages import ROOT, commit, part, stamp, stamp_of, update, weights_digest

ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=\S*")


class NotMade(Exception):
    """Why a figure is not made."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which figures, all when none is named; those that others are made from come along."""

    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME")] = ()
    list: Annotated[bool, tyro.conf.arg(help="show the figures, and whether each stands; make none")] = False
    check: Annotated[bool, tyro.conf.arg(help="fail where a page shows figures of other weights; make none")] = False
    withdraw: Annotated[bool, tyro.conf.arg(help="take figures of other weights out of the pages; make none")] = False
    again: Annotated[bool, tyro.conf.arg(help="make the named ones though they stand")] = False


@dataclass(frozen=True)
class Workshop:
    """A repository, its figures, and the record of those that were made: by command, with which weights, at which
    commit."""

    root: Path = ROOT
    figures: Mapping[str, Figure] = field(default_factory=lambda: FIGURES)
    weights: str = "src/chronoedit/weights/tiny"

    @cached_property
    def record(self) -> Ledger:
        return Ledger(self.root / "out/figures/record.jsonl")

    @property
    def digest(self) -> str:
        return weights_digest(self.root / self.weights)

    def commands(self, figure: Figure) -> tuple[str, ...]:
        """Those of a figure, with the folder of these weights filled in."""
        return tuple(command.format(out=f"out/figures/{self.digest[:8]}") for command in figure.commands)

    def chosen(self, names: Sequence[str]) -> list[str]:
        """The named figures and those that they are made from, in order. Raises NotMade for an unknown name."""
        unknown = [name for name in names if name not in self.figures]
        if unknown:
            raise NotMade(f"there is no figure {unknown[0]!r}; choose from {', '.join(self.figures)}")
        wanted = set(names or self.figures)
        for name in reversed(list(self.figures)):
            wanted |= set(self.figures[name].needs) if name in wanted else set()
        return [name for name in self.figures if name in wanted]

    def stale_parts(self, figure: Figure) -> Iterator[str]:
        """What is wrong with the marked parts of a figure, one line each."""
        for each in figure.parts:
            try:
                found = stamp_of(part(self.root / each.page, each.name))
            except ValueError as error:
                yield str(error)
                continue
            if found != self.digest[:8]:
                made = "without a digest" if found is None else f"of the weights {found}"
                yield f"{each.page}, part '{each.name}': {made}, the tree has {self.digest[:8]}"

    def state(self, name: str) -> str:
        """Whether a figure stands as made with these weights: "stands", or why it does not."""
        figure, made = self.figures[name], self.record.get(name)
        stale = list(self.stale_parts(figure))
        if stale:
            return stale[0]
        if made is None:
            return "not made here"
        if made["weights"] != self.digest or made["commands"] != list(self.commands(figure)):
            return "made with other weights or commands"
        changed = [path for path, sha256 in made["files"].items() if self._sha256(path) != sha256]
        return f"{changed[0]} is not the one that was made" if changed else "stands"

    def make(self, name: str) -> None:
        """Run what is left of a figure's commands and stamp its parts. Raises NotMade, or ValueError for a page."""
        figure, commands, digest = self.figures[name], self.commands(self.figures[name]), self.digest
        first = next((k for k, command in enumerate(commands) if not self._is_done(f"{name}/{k}", command)), 0)
        before = {path: self._written(path) for path in figure.files if first == 0}
        for k, command in enumerate(commands[first:], start=first):
            print(f"{name}: {command}", flush=True)
            started = time.monotonic()
            self._run(command)
            minutes = round((time.monotonic() - started) / 60, 1)
            facts = {"weights": digest, "command": command, "commit": commit(), "minutes": minutes}
            self.record.append(f"{name}/{k}", facts)
        if self.digest != digest:
            raise NotMade("the weights changed meanwhile")
        for path in figure.files:
            if self._written(path) in (None, before.get(path)):
                raise NotMade(f"its commands have not written {path}")
        self._stamp(figure)
        files = {path: self._sha256(path) for path in figure.files}
        self.record.append(name, {"weights": digest, "commands": list(commands), "commit": commit(), "files": files})

    def _is_done(self, key: str, command: str) -> bool:
        made = self.record.get(key)
        return made is not None and made["weights"] == self.digest and made["command"] == command

    def _run(self, command: str) -> None:
        words = shlex.split(command)
        settings = [words.pop(0) for _ in range(len(words)) if words and ASSIGNMENT.fullmatch(words[0])]
        programs = {"python": [sys.executable], "chronoedit": [sys.executable, "-m", "chronoedit"]}
        words = [*programs.get(words[0], words[:1]), *words[1:]]
        environment = {**os.environ, **dict(each.split("=", 1) for each in settings)}
        done = subprocess.run(words, cwd=self.root, env=environment)
        if done.returncode:
            raise NotMade(f"exit code {done.returncode} of: {command}")

    def _stamp(self, figure: Figure) -> None:
        for each in figure.parts:
            page = self.root / each.page
            found = stamp_of(part(page, each.name))
            if found not in (None, self.digest[:8]):
                raise NotMade(f"its commands have not written the part '{each.name}' of {each.page}")
            stamp(page, each.name, self.digest)

    def withdraw(self, name: str) -> Iterator[str]:
        """Say in place of each stale part of a figure that it is not made yet; which parts these are."""
        words = f"Not made with these weights yet: `make figures FIGURES={name}`.\n"
        for each in self.figures[name].parts:
            page = self.root / each.page
            if stamp_of(part(page, each.name)) != self.digest[:8]:
                update(page, words, each.name)
                stamp(page, each.name, self.digest)
                yield f"{each.page}, part '{each.name}'"

    def _written(self, path: str) -> tuple[int, int] | None:
        """What changes when a file is written, though its bytes may not."""
        file = self.root / path
        return (file.stat().st_mtime_ns, file.stat().st_ino) if file.is_file() else None

    def _sha256(self, path: str) -> str | None:
        file = self.root / path
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def make_all(workshop: Workshop, names: Sequence[str], *, again: bool = False) -> dict[str, str]:
    """Make what does not stand; the figures that failed, and why."""
    failed: dict[str, str] = {}
    for name in workshop.chosen(names):
        if workshop.state(name) == "stands" and not (again and name in names):
            print(f"{name}: stands")
            continue
        try:
            workshop.make(name)
        except (NotMade, ValueError, OSError) as error:
            failed[name] = str(error)
            print(f"{name}: not made: {error}", file=sys.stderr)
    return failed


def main(options: Options, workshop: Workshop | None = None) -> int:
    """List, check or make; the exit code."""
    shop = workshop or Workshop()
    try:
        names = shop.chosen(options.names)
    except NotMade as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        for name in names:
            figure = shop.figures[name]
            print(f"{name:12} {figure.minutes:4.0f} min  {figure.shows}: {shop.state(name)}")
        return 0
    if options.withdraw:
        print("\n".join(line for name in names for line in shop.withdraw(name)) or "nothing to withdraw")
        return 0
    if options.check:
        stale = [line for name in names for line in shop.stale_parts(shop.figures[name])]
        print("\n".join(stale) or f"all figures are of the weights {shop.digest[:8]}")
        return bool(stale)
    failed = make_all(shop, options.names, again=options.again)
    for name, why in failed.items():
        print(f"not made: {name}: {why}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
