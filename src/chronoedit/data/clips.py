"""Long videos cut to clips of 29 frames, in the published layout: videos, and `metadata.csv` that lists them."""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chronoedit.data.footage import Footage, Sample, open_footage, samples
from chronoedit.data.spans import CLIP_LENGTH, REASONS, Limits, Seen, Span, Verdict, judge, signature, spans
from chronoedit.errors import ImageError, OutputError
from chronoedit.ledger import Ledger, claim
from chronoedit.media import atomic_path, contact_sheet, read_video, save_image, save_video

logger = logging.getLogger(__name__)

COLUMNS = ("key", "video", "prompt")
SHEET_ROWS = 24
SHEET_SIDE_PX = 256
SPANS_BETWEEN_RECORDS = 64
Report = Callable[[Path, float, float], None]


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How clips are cut: `seconds` from first to last frame, to the nearest whole number of the video's frames.

    Frames whose shorter side is above `short_side_px` are scaled down to it; a shot gives at most `max_per_shot`
    clips. Raises ValueError.
    """

    seconds: float = 2.0
    limits: Limits = field(default_factory=Limits)
    max_per_shot: int = 8
    short_side_px: int = 720

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"a clip of {self.seconds} seconds: give more than 0, such as 2")
        if self.max_per_shot < 1:
            raise ValueError(f"at most {self.max_per_shot} clips a shot: give 1 or more")
        if self.short_side_px < 16:
            raise ValueError(f"a short side of {self.short_side_px} px: give 16 or more, such as 720")

    def every_s(self, footage: Footage) -> float:
        """From one frame of a clip to the next. Raises ImageError for a video with too few frames a second."""
        stride = round(self.seconds * footage.frames_per_s / (CLIP_LENGTH - 1))
        if not stride:
            raise ImageError(
                f"{footage.path} has {footage.frames_per_s:g} frames a second, too few for {CLIP_LENGTH} in "
                f"{self.seconds:g} s; give --seconds {(CLIP_LENGTH - 1) / footage.frames_per_s:.1f} or more"
            )
        return stride / footage.frames_per_s


@dataclass
class ClipReport:
    """What was made: clips in all, videos read to their end, spans rejected by reason, videos that failed and why."""

    clips: int = 0
    videos: int = 0
    seconds: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)


def cut_clips(
    videos: Sequence[Path],
    folder: Path,
    settings: ClipSettings,
    report: Report = lambda video, done_s, total_s: None,
) -> ClipReport:
    """Write the clips of all videos below `folder`, with `metadata.csv`, `sheet.png`, `clips.jsonl`, `progress.jsonl`.

    A job that was stopped, at whatever moment, goes on where it was, and more videos add to a finished one. What is in
    `metadata.csv` already, such as captions, stays. A video that cannot be read is told of, and the others go on.
    `report(video, done_s, total_s)` is called after each span. Raises OutputError when a file cannot be written, or the
    folder holds clips of other settings.
    """
    claim(folder / "clips.json", asdict(settings), "clips of other settings")
    job = _Job(folder, settings)
    result = ClipReport()
    for video in videos:
        before = len(job.clips)
        try:
            job.cut(open_footage(video), report)
        except ImageError as error:
            logger.warning("%s", error)
            result.failed[str(video)] = str(error)
        if len(job.clips) > before:
            write_table(folder, job.clips.records())
    write_table(folder, job.clips.records())
    records = job.clips.records()
    result.clips = len(records)
    for state in job.progress.records():
        result.videos += state["done"]
        result.seconds += state["seconds"]
        result.rejected.update(state["rejected"])
    sheet = clip_sheet(folder, records)
    if sheet is not None:
        save_image(sheet, folder / "sheet.png")
    return result


class _Job:
    """The two records on disk, clips and how far each video is, and the signatures of what is kept."""

    def __init__(self, folder: Path, settings: ClipSettings) -> None:
        self.folder, self.settings = folder, settings
        self.clips, self.progress = Ledger(folder / "clips.jsonl"), Ledger(folder / "progress.jsonl")
        self.seen = Seen()
        for record in self.clips.records():
            self.seen.add(record["key"], np.frombuffer(bytes.fromhex(record["signature"]), np.uint8).reshape(4, -1))

    def cut(self, footage: Footage, report: Report) -> None:
        """Cut one video, from where it was left."""
        every_s = self.settings.every_s(footage)
        state = _State.read(self.progress.get(footage.id))
        if state.done:
            return
        found = samples(footage, every_s, self.settings.short_side_px, state.next)
        looked_at = 0
        for looked_at, span in enumerate(spans(found, lambda window: self._judge(footage, window, state)), 1):
            state.take(span, every_s)
            if span.verdict.reason is None:
                self._keep(footage, span, every_s)
            if span.verdict.reason is None or looked_at % SPANS_BETWEEN_RECORDS == 0:
                self.progress.append(footage.id, state.record(footage))
            report(footage.path, state.seconds, footage.duration_s)
        if not looked_at and not state.next:
            raise ImageError(
                f"no two frames of {footage.path} can be read one after the other: it is cut short, or without times"
            )
        state.done = True
        self.progress.append(footage.id, state.record(footage))

    def _judge(self, footage: Footage, window: Sequence[Sample], state: _State) -> Verdict:
        if state.in_shot >= self.settings.max_per_shot:
            return Verdict("enough", {})
        verdict = judge(window, self.settings.limits)
        if verdict.reason is None and self.seen.near(signature(window), but=clip_key(footage, window[0])):
            return Verdict("duplicate", verdict.measures)
        return verdict

    def _keep(self, footage: Footage, span: Span, every_s: float) -> None:
        """Write a clip, then its line: a clip without a line is written again, never listed twice."""
        key, first, last = clip_key(footage, span.samples[0]), span.samples[0], span.samples[-1]
        if key in self.clips:
            return
        video = Path("videos") / f"{key}.mp4"
        frames = np.stack([sample.pixels for sample in span.samples])
        save_video(frames, self.folder / video, fps=max(1, round(1 / every_s)))
        marks = signature(span.samples)
        record = {
            "video": video.as_posix(),
            "source": str(footage.path),
            "start_s": round(first.time_s, 3),
            "end_s": round(last.time_s, 3),
            "width": frames.shape[2],
            "height": frames.shape[1],
            **span.verdict.measures,
            "signature": marks.tobytes().hex(),
        }
        self.clips.append(key, record)
        self.seen.add(key, marks)


@dataclass
class _State:
    """How far a video is: the sample that is next, clips of its shot so far, and what was rejected."""

    next: int = 0
    in_shot: int = 0
    seconds: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)
    done: bool = False

    @classmethod
    def read(cls, record: dict[str, Any] | None) -> _State:
        if record is None:
            return cls()
        values = {name: record[name] for name in ("next", "in_shot", "seconds", "done")}
        return cls(**values, rejected=Counter(record["rejected"]))

    def record(self, footage: Footage) -> dict[str, Any]:
        return {"source": str(footage.path), **asdict(self), "rejected": dict(self.rejected)}

    def take(self, span: Span, every_s: float) -> None:
        reason = span.verdict.reason
        if reason is None:
            self.in_shot += 1
        else:
            self.rejected[reason] += 1
        if reason in ("short", "gap"):
            self.in_shot = 0
        self.next, self.seconds = span.next_index, round(span.next_index * every_s, 3)


def clip_key(footage: Footage, first: Sample) -> str:
    """The name of a clip: its video's, what that holds, and where it begins, in ms."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", footage.path.stem).strip("-")[:40] or "video"
    return f"{name}_{footage.id[:8]}_{round(first.time_s * 1000):08d}"


def write_table(folder: Path, records: Sequence[dict[str, Any]]) -> Path:
    """`metadata.csv` with a row for every clip whose video is there; rows that it has stay as they are."""
    path = folder / "metadata.csv"
    columns, rows = _read_table(path)
    for record in records:
        if record["key"] not in rows and (folder / record["video"]).is_file():
            rows[record["key"]] = {"key": record["key"], "video": record["video"], "prompt": ""}
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
    return path


def _read_table(path: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Columns and rows by key of a table that was written before, perhaps with captions since."""
    if not path.exists():
        return list(COLUMNS), {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        if not {*COLUMNS} <= {*columns}:
            raise OutputError(f"{path} has the columns {', '.join(columns)}, not {', '.join(COLUMNS)}; move it away")
        return columns, {row["key"]: row for row in reader}


def clip_sheet(folder: Path, records: Sequence[dict[str, Any]]) -> Image.Image | None:
    """First, middle and last frame of at most SHEET_ROWS clips, evenly chosen; None without clips."""
    there = [record for record in records if (folder / record["video"]).is_file()]
    chosen = [there[k * len(there) // SHEET_ROWS] for k in range(SHEET_ROWS)] if len(there) > SHEET_ROWS else there
    if not chosen:
        return None
    rows = [list(_thumbnails(folder / record["video"])) for record in chosen]
    labels = [f"{record['key']}: {record['change']:.1%} changes" for record in chosen]
    return contact_sheet(rows, labels=labels)


def _thumbnails(video: Path) -> Iterator[Image.Image]:
    frames = read_video(video)
    for k in (0, len(frames) // 2, -1):
        picture = Image.fromarray(frames[k])
        picture.thumbnail((SHEET_SIDE_PX, SHEET_SIDE_PX), Image.Resampling.LANCZOS)
        yield picture


def reasons(rejected: Counter[str]) -> list[str]:
    """Lines that say how many spans were rejected, and why, the most frequent first."""
    return [f"{count:>6} {reason}: {REASONS[reason]}" for reason, count in rejected.most_common()]
