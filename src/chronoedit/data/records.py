"""One training example as it lies on disk, whatever the format: words, and two pictures or a video.

Nothing is decoded until `frames` is called, and a record can be sent to another process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from chronoedit.errors import DataError, ImageError, MissingExtraError
from chronoedit.media import load_image, read_video

PAIR_FRAMES = (2, 5)
CLIP_FRAMES = (26, 29)
REASONED_FRAMES = 25
"""Frames of a clip that are kept from its beginning; with its very last one they make a trajectory and its edit."""

Kind = Literal["pair", "clip"]
Read = TypeVar("Read")


class Blob(Protocol):
    """The bytes of one file, wherever they lie. `read` raises DataError."""

    @property
    def name(self) -> str: ...

    def read(self) -> bytes: ...


@dataclass(frozen=True)
class FileBlob:
    """A file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class TarBlob:
    """A member of an uncompressed tar archive."""

    archive: Path
    member: str
    offset: int
    size_bytes: int

    @property
    def name(self) -> str:
        return f"{self.archive}:{self.member}"

    def read(self) -> bytes:
        try:
            with self.archive.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size_bytes)
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error.strerror or error}") from error
        if len(data) < self.size_bytes:
            raise DataError(
                f"{self.name} is cut short ({len(data)} of {self.size_bytes} bytes); fetch the archive anew"
            )
        return data


@dataclass(frozen=True)
class ParquetBlob:
    """The picture in one cell of a parquet file: bytes, or a struct with `bytes`."""

    path: Path
    column: str
    group: int
    row: int  # within its group

    @property
    def name(self) -> str:
        return f"{self.path}:{self.column}[{self.group}.{self.row}]"

    def read(self) -> bytes:
        value = _parquet_column(self.path, self.group, self.column)[self.row].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise DataError(f"{self.name} holds no bytes of a picture but {type(data).__name__}")
        return data


def pyarrow_parquet() -> Any:
    """pyarrow's module for parquet. Raises MissingExtraError."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError('parquet files need pyarrow: pip install "chronoedit[parquet]"') from error
    return pyarrow.parquet


@lru_cache(maxsize=4)  # neighbours of a row are read next: one group of each column stays decoded
def _parquet_column(path: Path, group: int, column: str) -> Any:
    try:
        return pyarrow_parquet().ParquetFile(path).read_row_group(group, columns=[column]).column(0)
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise DataError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Record:
    """One example: `before` and `after`, or a `video` (whose first frame `before` replaces where both are given).

    `row` says where it stands, for messages: a file and a line. `key` names it within the set. `problem` is what is
    wrong with the row itself, where it could not be read; such a record has no frames.
    """

    row: str
    key: str
    prompt: str = ""
    before: Blob | None = None
    after: Blob | None = None
    video: Blob | None = None
    problem: str | None = None


def frames(record: Record) -> np.ndarray:
    """The record's pictures, uint8 `T H W 3`, T = 2 for a pair and 26 for a clip.

    A clip is its first 25 frames and its very last one, as published. Raises DataError, naming the row, for a file
    that is missing or damaged, pictures of different sizes, and a video that is neither a pair nor a clip.
    """
    if record.problem is not None:
        raise DataError(f"{record.row}: {record.problem}")
    if record.video is None:
        if record.before is None or record.after is None:
            lacks = "picture before" if record.before is None else "picture after"
            raise DataError(f"{record.row}: it has neither a video nor a {lacks}; name it, or take the row out")
        return _stacked(record, [_picture(record, record.before), _picture(record, record.after)])
    video = _decoded(record, record.video, read_video)
    kept = list(video[_kept_frames(record, len(video))])
    if record.before is not None:
        kept[0] = _picture(record, record.before)
    return _stacked(record, kept)


def kind_of(count: int) -> Kind | None:
    """Whether a video of so many frames is a pair or a clip; None when it is neither."""
    return "pair" if count in PAIR_FRAMES else "clip" if count in CLIP_FRAMES else None


def _kept_frames(record: Record, count: int) -> list[int]:
    kind = kind_of(count)
    if kind is None:
        raise DataError(
            f"{record.row}: a video of {count} frame{'s' * (count != 1)}; a pair has {_either(PAIR_FRAMES)}, a clip "
            f"{_either(CLIP_FRAMES)}: cut it, or take the row out"
        )
    return [0, count - 1] if kind == "pair" else [*range(REASONED_FRAMES), count - 1]


def _either(counts: Sequence[int]) -> str:
    return " or ".join(map(str, counts))


def _picture(record: Record, blob: Blob) -> np.ndarray:
    return np.asarray(_decoded(record, blob, load_image))


def _decoded(record: Record, blob: Blob, decode: Callable[[bytes], Read]) -> Read:
    try:
        return decode(blob.read())
    except DataError as error:
        raise DataError(f"{record.row}: {error}") from error
    except ImageError as error:
        what = str(error).replace("the picture", blob.name, 1).replace("the video", blob.name, 1)
        raise DataError(f"{record.row}: {what}") from error


def _stacked(record: Record, pictures: Sequence[np.ndarray]) -> np.ndarray:
    sizes = list(dict.fromkeys(picture.shape[:2] for picture in pictures))
    if len(sizes) > 1:
        shown = " and ".join(f"{width}x{height}" for height, width in sizes)
        raise DataError(f"{record.row}: its pictures are of different sizes, {shown} px; bring them to one size")
    return np.stack(pictures)


def split(records: Sequence[Record], validation_share: float) -> tuple[list[Record], list[Record]]:
    """Training and validation parts; a record's side follows from its key alone, whatever else is in the set.

    Raises ValueError for a share outside [0, 1).
    """
    if not 0 <= validation_share < 1:
        raise ValueError(f"validation share {validation_share} is not in [0, 1); use 0.05, or 0 for none")
    held_out = [_unit_hash(record.key) < validation_share for record in records]
    train = [record for record, out in zip(records, held_out, strict=True) if not out]
    return train, [record for record, out in zip(records, held_out, strict=True) if out]


def _unit_hash(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
