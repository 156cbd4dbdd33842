"""What a labels.jsonl holds: counts, lengths and verbs, and a page to look at a sample of it."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from chronoedit.data.label import KINDS, first_and_last
from chronoedit.data.label_file import read_labels
from chronoedit.data.label_job import LabelJob, kind_of_line
from chronoedit.errors import DataError
from chronoedit.report import Page

REVIEWED = 16
REVIEWED_WITH_PROBLEMS = 8
SHOWN_SIDE_PX = 360
COMMON_VERBS = 20


@dataclass
class Lengths:
    """How many texts have how many words."""

    words: Counter[int] = field(default_factory=Counter)

    def add(self, text: str) -> None:
        """Count a text."""
        self.words[len(text.split())] += 1

    def summary(self) -> dict[str, float]:
        """Their number, and the least, middle, mean and most words; empty without texts."""
        count = self.words.total()
        if not count:
            return {}
        ordered = sorted(self.words)
        mean = sum(words * times for words, times in self.words.items()) / count
        return {"texts": count, "least": ordered[0], "median": self._median(), "mean": mean, "most": ordered[-1]}

    def _median(self) -> int:
        left = self.words.total() // 2
        for words in sorted(self.words):
            left -= self.words[words]
            if left < 0:
                return words
        raise AssertionError("no texts")


@dataclass
class LabelStats:
    """What was counted, in memory that does not grow with the rows."""

    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    directions: Counter[str] = field(default_factory=Counter)
    changes: Counter[int] = field(default_factory=Counter)
    verbs: Counter[str] = field(default_factory=Counter)
    instructions: Lengths = field(default_factory=Lengths)
    reasoning: Lengths = field(default_factory=Lengths)
    repeats: int = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """Count a line."""
        kind = kind_of_line(line)
        self.rows += 1
        self.kinds[kind] += 1
        revision = line.get("revision")
        self.models[f"{line['model']}@{revision}" if revision else str(line["model"])] += 1
        if "direction" in line["checks"]:
            self.directions[line["checks"]["direction"]] += 1
        if kind != "labelled":
            return
        self.repeats += line["checks"].get("repeats") is not None
        parts = changes_of(line["caption"])
        self.changes[len(parts)] += 1
        self.verbs.update(verb for verb in map(verb_of, parts) if verb)
        self.instructions.add(line["caption"])
        if line["caption_cot"] is not None:
            self.reasoning.add(line["caption_cot"])

    def to_json(self) -> dict[str, Any]:
        """All of it, the most frequent verbs alone."""
        return {
            "rows": self.rows,
            "kinds": dict(self.kinds.most_common()),
            "models": dict(self.models.most_common()),
            "directions": dict(self.directions.most_common()),
            "repeated_captions": self.repeats,
            "changes_per_caption": {str(count): self.changes[count] for count in sorted(self.changes)},
            "instruction_words": self.instructions.summary(),
            "reasoning_words": self.reasoning.summary(),
            "verbs": dict(self.verbs.most_common(COMMON_VERBS)),
        }


def label_stats(lines: Iterable[Mapping[str, Any]]) -> LabelStats:
    """The counts of lines of labels.jsonl."""
    stats = LabelStats()
    for line in lines:
        stats.add(line)
    return stats


def changes_of(instruction: str) -> list[str]:
    """The changes that an instruction joins by semicolons."""
    return [part.strip() for part in instruction.split(";") if part.strip()]


def verb_of(change: str) -> str | None:
    """The verb of an order, which is its first word; one that begins with "then" or "and" has it second."""
    words = re.findall(r"[a-z]+", change.lower())
    return next((word for word in words if word not in ("and", "then", "also", "please")), None)


def sample_lines(path: Path, seed: int = 0) -> list[dict[str, Any]]:
    """Some lines of either sort, drawn evenly from all, in their order: good ones first, then ones with a problem."""
    rng = random.Random(seed)
    drawn: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    passed: Counter[bool] = Counter()
    for line in read_labels(path):
        bad = line["problem"] is not None
        room = REVIEWED_WITH_PROBLEMS if bad else REVIEWED
        passed[bad] += 1
        if len(drawn[bad]) < room:
            drawn[bad].append(line)
        elif (place := rng.randrange(passed[bad])) < room:  # reservoir sampling (Vitter 1985, algorithm R)
            drawn[bad][place] = line
    return [line for bad in (False, True) for line in sorted(drawn[bad], key=lambda line: int(line["n"]))]


def write_review(job: LabelJob, path: Path, seed: int = 0) -> int:
    """A page of a sample of a job's rows: both pictures, both texts, the checks. Returns how many it shows.

    Raises OutputError for a page that cannot be written, or no labels; DataError for a set that cannot be read.
    """
    lines = sample_lines(job.labels, seed)
    wanted = {line["n"] for line in lines}
    pictures = dict(_pictures(job, wanted))
    page = Page(f"Labels of {job.source.name}")
    page.text(
        f"{len(lines)} rows, drawn at random: up to {REVIEWED} good ones, then up to {REVIEWED_WITH_PROBLEMS} that are "
        "left out of training."
    )
    for line in lines:
        page.heading(f"{line['key']} ({line['row']})")
        if line["n"] in pictures:
            page.pictures(list(zip(pictures[line["n"]], ("before", "after"), strict=True)))
        page.facts(_facts(line))
    page.write(path)
    return len(lines)


def _pictures(job: LabelJob, wanted: set[int]) -> Iterator[tuple[int, list[Image.Image]]]:
    """The small pictures of rows, by number; a row whose pictures cannot be read is left out."""
    if not wanted:
        return
    for row in job.rows():
        if row.n in wanted:
            with suppress(DataError):  # its line says so
                yield row.n, [_small(picture) for picture in first_and_last(row.record)]
        if row.n >= max(wanted):
            return


def _small(picture: Image.Image) -> Image.Image:
    picture.thumbnail((SHOWN_SIDE_PX, SHOWN_SIDE_PX), Image.Resampling.LANCZOS)
    return picture


def _facts(line: Mapping[str, Any]) -> dict[str, object]:
    problem = line["problem"]
    facts: dict[str, object] = {}
    if problem is not None:
        facts["problem"] = f"{KINDS.get(problem['kind'], problem['kind'])}: {problem['message']}"
    facts |= {"instruction": line["caption"], "reasoning prompt": line["caption_cot"]}
    return facts | {name.replace("_", " "): value for name, value in line["checks"].items() if value is not None}
