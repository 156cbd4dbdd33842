"""Seconds of one edit by the command line in a fresh process, files in the page cache; and of `make demo`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pages import ROOT, measured_by, table, update

PROMPT = "pick up the yellow ball with the robot arm"
WAYS = {
    "plain": ("out.png",),
    "with reasoning and an mp4": ("out.mp4", "--enable-temporal-reasoning"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time; `update` is a page with a part `cold edit`."""

    repeats: int = 3
    demo: Annotated[
        bool, tyro.conf.arg(help="`make demo` too, on a clone of the commit; needs packages to install")
    ] = False
    update: Path | None = None


def seconds(words: Sequence[str], folder: Path) -> float:
    """Seconds of a process from its start to its end."""
    began = time.perf_counter()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


def edit_s(way: str, folder: Path) -> float:
    """Seconds of one edit."""
    output, *flags = WAYS[way]
    words = ["edit", "-i", str(ROOT / "examples/table.png"), "-p", PROMPT, "--seed", "1", "-o", output, *flags]
    return seconds([sys.executable, "-m", "chronoedit", *words], folder)


def demo_s(folder: Path) -> float:
    """Seconds of `make demo` on a fresh clone, the environment and its packages included."""
    seconds(["git", "clone", "--quiet", str(ROOT), "clone"], folder)
    return seconds(["make", "demo", f"PYTHON={sys.executable}"], folder / "clone")


def main(options: Options) -> None:
    """Print the table, and write it into the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = {way: [edit_s(way, folder) for _ in range(options.repeats + 1)][1:] for way in WAYS}  # one warms up
        if options.demo:
            times["`make demo` on a fresh clone, without an environment"] = [demo_s(folder)]
    rows = [(way, f"{statistics.median(each):.1f}", ", ".join(f"{s:.1f}" for s in each)) for way, each in times.items()]
    text = f"{measured_by()}\n{table(('', 'median, s', 'all runs, s'), rows)}\n"
    if options.update:
        update(options.update, text, "cold edit")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options))
