"""Edits by the dozen: `chronoedit batch` beside single calls in one process, and beside a command line for each.

The same edits of the small world by the embedded model, in four ways; each way is a process of its own with the same
threads, and its time is that from its start to its end. The calls of the command line can be fewer (`--commands`),
since each costs the same. Throughput is edits a second; pictures of all ways are compared.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from pages import measured_by, update
from pages import table as markdown_table

SINGLE_CALLS = """
import csv, sys
from chronoedit import EditRequest, load
from chronoedit.media import save_image

manifest, output = sys.argv[1:]
editor = load()
for row in csv.DictReader(open(manifest)):
    request = EditRequest(image=row["image"], prompt=row["prompt"], seed=int(row["seed"]))
    save_image(editor.edit(request).image, f"{output}/{row['key']}.png")
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How many edits, and how many of the slowest way."""

    items: int = 100
    commands: Annotated[int, tyro.conf.arg(help="edits by a command line each; their time is multiplied up")] = 10
    repeats: Annotated[int, tyro.conf.arg(help="runs of each way, in turn; the median counts")] = 3
    batch_size: Annotated[int | None, tyro.conf.arg(help="as the command's (default: its own)")] = None
    threads: Annotated[int | None, tyro.conf.arg(help="of each process (default: torch's)")] = None
    update: Annotated[Path | None, tyro.conf.arg(help="a page with a part `batch`")] = None


@dataclass(frozen=True)
class Job:
    """The edits, and where the ways leave their pictures."""

    settings: Settings
    folder: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "edits.csv"

    def write_inputs(self) -> None:
        """The pictures, and the table with absolute paths."""
        from chronoedit.world import FIRST_EVALUATION_SEED, sample_item

        with self.manifest.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("image", "prompt", "key", "seed"))
            for k in range(self.settings.items):
                item = sample_item(FIRST_EVALUATION_SEED + k)
                path = self.folder / f"{k}.png"
                Image.fromarray(item.input).save(path)
                writer.writerow((path, item.prompt, k, item.seed))

    def rows(self) -> list[dict[str, str]]:
        with self.manifest.open(newline="") as file:
            return list(csv.DictReader(file))

    def batch_s(self, output: Path) -> float:
        """Seconds of `chronoedit batch`."""
        size = self.settings.batch_size
        words = [] if size is None else ["--batch-size", str(size)]
        return self._run("-m", "chronoedit", "batch", str(self.manifest), "-o", str(output), *words)

    def shared_batch_s(self, output: Path) -> float:
        """Seconds of `torchrun chronoedit batch`, a process of one thread on each core."""
        launch = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={os.cpu_count()}")
        return self._run(*launch, "-m", "chronoedit", "batch", str(self.manifest), "-o", str(output), threads=1)

    def single_calls_s(self, output: Path) -> float:
        """Seconds of one process that edits one by one."""
        output.mkdir()
        return self._run("-c", SINGLE_CALLS, str(self.manifest), str(output))

    def commands_s(self, output: Path) -> float:
        """Seconds of a command line for each edit, as if for all."""
        count = min(self.settings.commands, self.settings.items)
        seconds = 0.0
        for row in self.rows()[:count]:
            words = ("-i", row["image"], "-p", row["prompt"], "--seed", row["seed"])
            seconds += self._run("-m", "chronoedit", "edit", *words, "-o", str(output / f"{row['key']}.png"))
        return seconds / count * self.settings.items

    def _run(self, *words: str, threads: int | None = None) -> float:
        threads = threads or self.settings.threads
        environment = dict(os.environ) if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)
        return time.perf_counter() - start


WAYS = {
    "chronoedit batch": Job.batch_s,
    "torchrun chronoedit batch, a process a core": Job.shared_batch_s,
    "single calls in one process": Job.single_calls_s,
    "a command line each": Job.commands_s,
}


def pictures(folder: Path) -> dict[str, np.ndarray]:
    """The pictures by the number of their edit."""
    return {path.stem.split("-")[-1]: np.asarray(Image.open(path), int) for path in sorted(folder.glob("*.png"))}


def largest_difference(folders: list[Path]) -> int:
    """By how much of 255 pictures of one edit differ between the ways."""
    first, *others = map(pictures, folders)
    return max(int(np.abs(first[key] - image).max()) for other in others for key, image in other.items())


def table(settings: Settings, seconds: dict[str, list[float]]) -> str:
    """Throughput of each way, and how many times as many edits as single calls it does."""
    medians = {way: float(np.median(times)) for way, times in seconds.items()}
    single = medians["single calls in one process"]
    rows = []
    for way, median in medians.items():
        rate, each = settings.items / median, median / settings.items
        rows.append((way, f"{rate:.2f}", f"{each:.3f}", f"{single / median:.2f}x"))
    return markdown_table(("way", "edits/s", "s an edit", "of single calls in one process"), rows)


def main(settings: Settings) -> None:
    """Run all ways in turn and print the table."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        job = Job(settings, Path(name))
        job.write_inputs()
        for repeat in range(settings.repeats):
            folders = [job.folder / f"{repeat}-{number}" for number in range(len(WAYS))]
            for (way, run), folder in zip(WAYS.items(), folders, strict=True):
                seconds[way].append(run(job, folder))
            difference = largest_difference(folders)
    facts = (
        f"{settings.items} edits (by a command line each {min(settings.commands, settings.items)}, multiplied up), "
        f"{settings.repeats} run(s), from start to end of the processes; pictures of the ways differ by at most "
        f"{difference} of 255"
    )
    text = f"{measured_by(facts)}\n{table(settings, seconds)}\n"
    if settings.update:
        update(settings.update, text, "batch")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Settings))
