"""Labelling a whole set: rows stream in, labels.jsonl grows in their order, and metadata.csv follows from it."""

from __future__ import annotations

import csv
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from chronoedit.data.formats import iter_records
from chronoedit.data.label import Label
from chronoedit.data.label_file import LabelFile, Seen, read_labels
from chronoedit.data.records import Blob, FileBlob, Record
from chronoedit.errors import OutputError, VlmError
from chronoedit.media import atomic_path, write_files

MAX_UNANSWERED = 8
"""So many rows in a row that the model could not be asked about mean that it is gone, and the job stops."""
MAX_HELD = 256
PICTURES_A_FOLDER = 1000
COLUMNS = ("key", "video", "input_image", "image", "prompt")
MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}

Prompts = Literal["reasoning", "concise"]
AnswerAll = Callable[[Iterable["Row"]], Iterator[tuple["Row", Label]]]
"""Labels each row, in their order, however many at once and wherever."""


@dataclass(frozen=True)
class Shard:
    """The part of a set that one of several jobs does: every `count`-th row, from the `index`-th (of 1 to `count`)."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """A part as "2/8" names it. Raises ValueError."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"{text!r} is no part of a set; give one such as 1/4, up to 4/4")
        return cls(int(index), int(count))

    def file(self, stem: str, suffix: str) -> str:
        """The name of its file, of its own where there are several parts."""
        return f"{stem}{suffix}" if self.count == 1 else f"{stem}-{self.index}-of-{self.count}{suffix}"


@dataclass(frozen=True)
class Row:
    """A record, and which one of the whole set it is, from 0."""

    n: int
    record: Record


@dataclass(frozen=True, kw_only=True)
class LabelJob:
    """A set, where its paths start, the folder that is written, the part that is done, and who answers.

    `model` and `revision` are kept in each line. Files: labels.jsonl (every row), metadata.csv (those to train on),
    labels.sqlite (what was seen, made anew where it is missing), pictures/ (of archives, which a table cannot name).
    """

    source: Path
    output: Path
    base: Path | None = None
    shard: Shard = Shard()
    upgrade: bool = False
    model: str = ""
    revision: str | None = None

    @property
    def labels(self) -> Path:
        """Its labels.jsonl."""
        return self.output / self.shard.file("labels", ".jsonl")

    @property
    def metadata(self) -> Path:
        """Its metadata.csv."""
        return self.output / self.shard.file("metadata", ".csv")

    def rows(self) -> Iterator[Row]:
        """The rows of its part. Raises DataError when there is no set."""
        records = iter_records(self.source, self.base, captions=self.upgrade)
        chosen = islice(enumerate(records), self.shard.index - 1, None, self.shard.count)
        return (Row(n, record) for n, record in chosen)

    def run(self, answer_all: AnswerAll, report: Callable[[int], None] = lambda done: None) -> None:
        """Label what is not labelled yet; `report(done)` after each line. The lines there are stay.

        Raises DataError for a set that cannot be read, OutputError for files that cannot be written or are those of
        another set or run, VlmError when the model cannot be asked any more: the same job then goes on there later.
        """
        rows = self.rows()
        with LabelFile(self.labels, self.output / self.shard.file("labels", ".sqlite")) as file:
            _skip_done(rows, file)
            report(file.lines)
            held: list[tuple[Row, Label]] = []
            for row, label in answer_all(_keyed_once(rows, file.seen)):
                held.append((row, label))
                if not _settles(held):
                    continue
                for each in held:
                    file.append(self._line(*each, file.seen))
                held.clear()
                report(file.lines)
            if held:
                raise VlmError(_gone(held))

    def _line(self, row: Row, label: Label, seen: Seen) -> dict[str, Any]:
        usable = label.problem is None and not label.unchanged
        line = {
            "n": row.n,
            "key": row.record.key,
            "row": row.record.row,
            "pictures": self._pictures(row, unpack=usable),
            **label.to_json(),
            "model": self.model,
            "revision": self.revision,
        }
        line["checks"]["repeats"] = seen.remember(line)
        return line

    def _pictures(self, row: Row, unpack: bool) -> dict[str, str]:
        """Where each picture is, by its column in metadata.csv; one in an archive is copied out where it is needed."""
        parts = {"video": row.record.video, "input_image": row.record.before, "image": row.record.after}
        return {column: self._place(row, column, blob, unpack) for column, blob in parts.items() if blob is not None}

    def _place(self, row: Row, column: str, blob: Blob, unpack: bool) -> str:
        if isinstance(blob, FileBlob):
            return os.path.abspath(blob.path)
        if not unpack:
            return blob.name
        data = blob.read()
        suffix = next((suffix for magic, suffix in MAGIC.items() if data.startswith(magic)), ".mp4")
        folder = Path("pictures") / f"{row.n // PICTURES_A_FOLDER:06d}"
        place = folder / f"{row.n:09d}-{column}{suffix}"
        write_files({self.output / place: data})
        return place.as_posix()


def _skip_done(rows: Iterator[Row], file: LabelFile) -> None:
    """Pass over the rows that have a line. Raises OutputError when the last of them is another row than the line's."""
    passed = deque(islice(rows, file.lines), maxlen=1)
    last = passed[0] if passed else None
    if file.last is not None and (last is None or (last.n, last.record.key) != (file.last["n"], file.last["key"])):
        raise OutputError(
            f"{file.path} has {file.lines} lines of another set, or the set has changed: row {file.last['n']} was "
            f"{file.last['key']!r}; choose another output"
        )


def _keyed_once(rows: Iterator[Row], seen: Seen) -> Iterator[Row]:
    """The rows; one whose key an earlier row had becomes a record with that problem, and is not asked about."""
    for row in rows:
        first = seen.first("key", row.record.key, row.n)
        if first != row.n:
            problem = f"its key {row.record.key!r} is that of row {first} already; rename one"
            row = replace(row, record=replace(row.record, problem=problem))
        yield row


def _settles(held: list[tuple[Row, Label]]) -> bool:
    """Whether the labels that are held back can be written: the model has answered, or nothing was asked of it.

    Raises VlmError when it has not for too long.
    """
    problems = [label.problem.kind if label.problem else None for _, label in held]
    unanswered = problems.count("unanswered")
    if unanswered >= MAX_UNANSWERED or len(held) >= MAX_HELD:
        raise VlmError(_gone(held))
    return unanswered == 0 or problems[-1] not in ("unanswered", "broken", "caption")


def _gone(held: list[tuple[Row, Label]]) -> str:
    row, label = next(each for each in held if each[1].problem is not None and each[1].problem.kind == "unanswered")
    message = "" if label.problem is None else label.problem.message
    return f"{message} (from {row.record.row} on; the rows before are kept, and the same command goes on there)"


def write_metadata(labels: Path, metadata: Path, prompts: Prompts = "reasoning") -> Counter[str]:
    """Write the table that training reads from the lines there are, whole or not at all; and count them.

    A row with a problem, without a change, or without the prompt that is asked for is left out. Raises OutputError.
    """
    counts: Counter[str] = Counter()
    name = "caption_cot" if prompts == "reasoning" else "caption"
    with atomic_path(metadata) as temporary, temporary.open("x", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for line in read_labels(labels):
            kind = kind_of_line(line)
            counts["rows"] += 1
            counts["without a prompt" if kind == "labelled" and line[name] is None else kind] += 1
            if kind != "labelled" or line[name] is None:
                continue
            if line["checks"].get("repeats") is not None:
                counts["repeated captions"] += 1
            writer.writerow({"key": line["key"], "prompt": line[name], **line["pictures"]})
    return counts


def kind_of_line(line: Mapping[str, Any]) -> str:
    """What became of a row: "labelled", "unchanged", or one of `label.KINDS`."""
    if line["problem"] is not None:
        return str(line["problem"]["kind"])
    return "unchanged" if Label(caption=line["caption"]).unchanged else "labelled"
