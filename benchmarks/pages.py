"""The marked parts of the repository's pages: written, read, stamped with the weights that they were made with.

A part stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`. What its text is made of is here too: tables,
cells with intervals, and the lines that say by what command, on which machine and at which commit it was measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "src/chronoedit/weights/tiny"
STAMP = re.compile(r"^Weights: ([0-9a-f]{8})$", flags=re.MULTILINE)
BEGIN = re.compile(r"<!-- ([^>]+): begin -->")
MEASURED_KEYS = ("mag_ratios",)
"""Settings of a model that are measured on its weights: a figure themselves, so no part of what figures depend on."""


def update(page: Path, text: str, name: str) -> None:
    """Put the text between the page's two comments of that name. Raises ValueError where the page lacks them."""
    before, _, after = _split(page, name)
    page.write_text(f"{before}\n{text}{after}", encoding="utf-8")


def part(page: Path, name: str) -> str:
    """What stands between the two comments. Raises ValueError where the page lacks them."""
    return _split(page, name)[1].removeprefix("\n")


def names_of_parts(page: Path) -> list[str]:
    """The names of a page's marked parts."""
    return BEGIN.findall(page.read_text(encoding="utf-8"))


def _split(page: Path, name: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page} needs one part '{name}', between {begin} and {end}")
    before, rest = text.split(begin)
    body, after = rest.split(end)
    return before + begin, body, end + after


def weights_digest(folder: Path = WEIGHTS) -> str:
    """SHA-256 of a model's weights, configs, tokenizer and settings; its card and pictures are no part of it."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(_settings(path) if path.name == "chronoedit.json" else path.read_bytes())
    return digest.hexdigest()


def _settings(path: Path) -> bytes:
    settings = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps({key: value for key, value in settings.items() if key not in MEASURED_KEYS}).encode()


def stamp_of(text: str) -> str | None:
    """The first eight digits of the digest that a part's text carries."""
    found = STAMP.search(text)
    return None if found is None else found[1]


def stamp(page: Path, name: str, digest: str) -> None:
    """Put the first eight digits of the digest at the head of a part, in place of others."""
    text = STAMP.sub("", part(page, name)).lstrip("\n")
    update(page, f"Weights: {digest[:8]}\n\n{text}", name)


def commit() -> str:
    """The commit that was measured, marked when the code in the working tree differs from it.

    The weights are told by their digest, and their folder holds figures.
    """
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    code = ["src", "benchmarks", "examples", ":(exclude)src/chronoedit/weights"]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *code], capture_output=True)
    return (head or "no commit") + (" with changes" if changed.returncode else "")


def machine_line(threads: int) -> str:
    """Processor or GPU, cores, threads and versions, as one line."""
    import diffusers
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return (
        f"{gpu}{name or platform.machine()}, {os.cpu_count()} cores, {threads} threads; "
        f"Python {platform.python_version()}, torch {torch.__version__}, diffusers {diffusers.__version__}"
    )


def measured_by(*facts: str) -> str:
    """The lines above a table: this process's command, its machine and commit, and what else is to be said."""
    import torch

    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    lines = [
        f"Command: `{' '.join(['python', name, *sys.argv[1:]])}`",
        f"Machine: {machine_line(torch.get_num_threads())}",
        f"Commit: {commit()}",
        *facts,
    ]
    return "  \n".join(lines) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, all columns but the first to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def share(group: Mapping[str, Any] | None) -> str:
    """A success with its interval, as summaries hold it; a dash where there is none."""
    if group is None:
        return "–"
    low, high = group["interval"]
    return f"{group['success']:.1%} ({low:.0%} to {high:.0%})"


def points(group: Mapping[str, Any]) -> str:
    """A difference of successes with its interval, in points."""
    low, high = group["interval"]
    return f"{100 * group['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
