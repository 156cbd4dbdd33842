"""What is wrong with a training set, row by row, before it is trained on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from chronoedit.data.records import Record, frames
from chronoedit.errors import DataError
from chronoedit.media import contact_sheet

SHEET_ROWS = 12
SHEET_SIDE_PX = 192
ALIGN_SIDE_PX = 64
SHIFTED_PX = 2  # of ALIGN_SIDE_PX: about 3 % of the picture
SHIFT_GAIN = 2.0  # how many times smaller the difference must be once the pictures are shifted onto each other
QUIET = (
    "nothing", "no change", "no edit", "unchanged", "as it is", "the same", "still", "stop", "stay", "freeze", "hold",
    "wait", "not move", "not change", "where it is",
)  # fmt: skip
"""What captions say where nothing is to change."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one row; `kind` is an entry of KINDS."""

    row: str
    kind: str
    message: str


KINDS = {
    "broken": "cannot be read",
    "caption": "has no caption",
    "unaligned": "its pictures are shifted against each other",
    "swapped": "before and after seem to be exchanged",
    "unchanged": "before and after are the same picture",
    "repeated": "the same pictures and caption as another row",
}


@dataclass
class CheckReport:
    """Counts of a set by kind and size, its problems, and small pictures of some of its rows."""

    records: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    shown: list[tuple[str, list[Image.Image]]] = field(default_factory=list)

    def sheet(self) -> Image.Image | None:
        """Before, some frames between, and after of the first rows; None when nothing could be read."""
        if not self.shown:
            return None
        return contact_sheet([pictures for _, pictures in self.shown], labels=[label for label, _ in self.shown])


def check(records: Sequence[Record], report: Callable[[int, int], None] = lambda done, total: None) -> CheckReport:
    """Read every record and say what is wrong; `report(done, total)` after each."""
    found = CheckReport(records=len(records))
    prints: list[tuple[Record, str, str]] = []  # record, hash of its first and of its last picture
    for done, record in enumerate(records, 1):
        try:
            video = frames(record)
        except DataError as error:
            message = str(error).removeprefix(f"{record.row}: ")
            found.problems.append(Problem(record.row, "broken", message))
        else:
            found.kinds["pair" if len(video) == 2 else "clip"] += 1
            found.sizes[f"{video.shape[2]}x{video.shape[1]}"] += 1
            found.problems += _problems(record, video)
            prints.append((record, _hash(video[0]), _hash(video[-1])))
            if len(found.shown) < SHEET_ROWS:
                found.shown.append((f"{record.row}: {record.prompt}", _small(video)))
        report(done, len(records))
    found.problems += _across(prints)
    return found


def _problems(record: Record, video: np.ndarray) -> list[Problem]:
    problems = []
    if not record.prompt.strip():
        problems.append(Problem(record.row, "caption", "its caption is empty"))
    if np.array_equal(video[0], video[-1]):
        if not any(word in record.prompt.lower() for word in QUIET):
            problems.append(Problem(record.row, "unchanged", f"nothing changes, but the caption is {record.prompt!r}"))
        return problems
    dx, dy = shift_px(video[0], video[-1])
    if (dx, dy) != (0, 0):
        problems.append(Problem(record.row, "unaligned", f"after is moved by about {dx}, {dy} px against before"))
    return problems


def _across(prints: Sequence[tuple[Record, str, str]]) -> list[Problem]:
    """What only the whole set tells: repeated rows, and pairs that run against the others.

    Where one picture is edited in several ways it is the `before` of several rows. A row whose `after` is the `before`
    of two or more others, and whose own `before` is the `after` of none, is likely the wrong way round.
    """
    problems = []
    befores, afters = Counter(first for _, first, _ in prints), Counter(last for _, _, last in prints)
    rows: dict[tuple[str, str, str], str] = {}
    for record, first, last in prints:
        same = rows.setdefault((first, last, record.prompt), record.row)
        if same != record.row:
            problems.append(Problem(record.row, "repeated", f"the same pictures and caption as {same}"))
        if first != last and befores[last] >= 2 and befores[first] == 1 and not afters[first]:
            count = befores[last]
            problems.append(Problem(record.row, "swapped", f"its picture after is the picture before of {count} rows"))
    return problems


def _hash(picture: np.ndarray) -> str:
    return hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


_WINDOW = np.outer(np.hanning(ALIGN_SIDE_PX), np.hanning(ALIGN_SIDE_PX))  # or the borders, which do not move, win


def shift_px(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """By how many px (x, y) `after` is moved as a whole against `before`, uint8 H W 3 each; (0, 0) when it is not.

    Phase correlation of the two, made small (Kuglin and Hines 1975); a shift counts only when it makes the two clearly
    more alike, since an edit that moves one large thing has a peak of its own.
    """
    height, width = before.shape[:2]
    a, b = (_grey(picture) for picture in (before, after))
    spectrum = np.fft.rfft2((a - a.mean()) * _WINDOW).conj() * np.fft.rfft2((b - b.mean()) * _WINDOW)
    peak = np.fft.irfft2(spectrum / np.maximum(np.abs(spectrum), 1e-9), a.shape)
    dy, dx = (int(v) for v in np.unravel_index(int(peak.argmax()), peak.shape))
    dy, dx = (v - ALIGN_SIDE_PX if v > ALIGN_SIDE_PX // 2 else v for v in (dy, dx))
    if max(abs(dy), abs(dx)) < SHIFTED_PX or max(abs(dy), abs(dx)) > ALIGN_SIDE_PX // 4:
        return 0, 0
    inside = (slice(max(dy, 0), ALIGN_SIDE_PX + min(dy, 0)), slice(max(dx, 0), ALIGN_SIDE_PX + min(dx, 0)))
    moved = np.roll(a, (dy, dx), axis=(0, 1))
    if np.abs(moved - b)[inside].mean() * SHIFT_GAIN > np.abs(a - b)[inside].mean():
        return 0, 0
    return round(dx * width / ALIGN_SIDE_PX), round(dy * height / ALIGN_SIDE_PX)


def _grey(picture: np.ndarray) -> np.ndarray:
    small = Image.fromarray(picture).convert("L").resize((ALIGN_SIDE_PX, ALIGN_SIDE_PX), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def _small(video: np.ndarray) -> list[Image.Image]:
    chosen = [0, len(video) - 1] if len(video) == 2 else [0, 8, 16, 24, len(video) - 1]
    pictures = [Image.fromarray(video[k]) for k in chosen]
    for picture in pictures:
        picture.thumbnail((SHEET_SIDE_PX, SHEET_SIDE_PX), Image.Resampling.LANCZOS)
    return pictures
