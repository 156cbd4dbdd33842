"""A video of any length as evenly spaced frames, decoded once from its beginning or from a given frame on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chronoedit.data.motion import small_size
from chronoedit.errors import ImageError

FOOTAGE_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".m4v", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv")
HELD_SAMPLES = 2  # a frame is shown again for so many that are missing; more missing than that is a gap
PREROLL_S = 1.0  # decoded and thrown away before the frame where reading goes on
_MIB = 2**20
_BT709, _UNSPECIFIED = 1, 2  # FFmpeg's numbers of colour matrices
_HD_PX = 720  # height from which a video that does not say so is taken for BT.709, as players do


@dataclass(frozen=True, eq=False)
class Sample:
    """One frame: the `index`-th of the evenly spaced ones, at `time_s` from the video's beginning.

    `pixels` are uint8 H W 3; `small` are the same at the size that is measured. `gap` says that frames are missing
    between the one before and this one.
    """

    index: int
    time_s: float
    pixels: np.ndarray
    small: np.ndarray
    gap: bool = False


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A video that is read: where it lies, what its content is called, its rate, length and size.

    `duration_s` is 0 where the file does not say. The size is that of square pixels, before a frame is turned upright.
    """

    path: Path
    id: str
    frames_per_s: float
    duration_s: float
    width: int
    height: int


def find_footage(paths: list[Path], without: Path | None = None) -> list[Path]:
    """The videos among `paths`, and in the folders among them, but for those below `without`; each named once.

    Raises ImageError for a path that does not exist and a folder without videos.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise ImageError(f"there is no {path}; give videos, or a folder of them")
        inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in FOOTAGE_SUFFIXES)
        videos = [path] if path.is_file() else [each for each in inside if not _below(each, without)]
        if not videos:
            raise ImageError(f"{path} has no videos in it; looked for {', '.join(FOOTAGE_SUFFIXES)}")
        for video in videos:
            found.setdefault(video.resolve(), video)
    return list(found.values())


def _below(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def open_footage(path: Path) -> Footage:
    """What a video is. Raises ImageError when it is missing, damaged, no video, or does not tell its rate."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        if rate <= 0 or not stream.width or not stream.height:
            raise ImageError(f"{path} does not say how many frames a second it has, or their size; save it as mp4")
        duration_s = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        shape = _shape(stream)
        return Footage(path=path, id=_content_id(path), frames_per_s=rate, duration_s=duration_s, **shape)


def _shape(stream: Any) -> dict[str, int]:
    aspect = float(stream.sample_aspect_ratio or 1) or 1.0
    return {"width": max(2, round(stream.width * aspect)), "height": stream.height}


def _content_id(path: Path) -> str:
    """A name made of the file's length, beginning and end: an hour of video is not read for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        data = file.read(_MIB)
        file.seek(max(0, size - _MIB))
        data += file.read(_MIB)
    return hashlib.sha256(f"{size}:".encode() + data).hexdigest()[:12]


def _opened(path: Path) -> Any:
    import av  # loads FFmpeg

    try:
        container = av.open(str(path), "r")
    except (av.error.FFmpegError, OSError) as error:
        raise ImageError(
            f"{path} is not a video that can be read ({error}); save it as mp4, or leave it out"
        ) from error
    if not container.streams.video:
        container.close()
        raise ImageError(f"{path} has no video in it; leave it out")
    container.streams.video[0].thread_type = "AUTO"
    return container


def samples(footage: Footage, every_s: float, short_side_px: int, first: int = 0) -> Iterator[Sample]:
    """Frames of the video `every_s` apart, from the `first`-th on, each scaled down to `short_side_px` if larger.

    One frame is decoded at a time. What cannot be decoded is passed over and shows as a gap. Where the file cannot be
    entered in the middle, it is decoded from its beginning.
    """
    if first:
        entered = _samples(footage, every_s, short_side_px, first, enter=True)
        sample = next(entered, None)
        if sample is not None and sample.index == first:
            yield sample
            yield from entered
            return
    yield from _samples(footage, every_s, short_side_px, first, enter=False)


def _samples(footage: Footage, every_s: float, short_side_px: int, first: int, *, enter: bool) -> Iterator[Sample]:
    large = _Scaler(*output_size(footage, short_side_px))
    small = _Scaler(*small_size(footage.width, footage.height))
    last, shown = -1, None
    for time_s, frame in _frames(footage, max(0.0, first * every_s - PREROLL_S) if enter else 0.0):
        index = int((time_s + 0.5 / footage.frames_per_s) / every_s)
        missing = index - last - 1
        if missing < 0:
            continue
        gap = shown is not None and missing > HELD_SAMPLES
        if shown is not None and not gap:
            for held in range(max(last + 1, first), index):
                yield Sample(held, held * every_s, large.rgb(shown), small.rgb(shown))
        if index >= first:
            yield Sample(index, time_s, large.rgb(frame), small.rgb(frame), gap)
        last, shown = index, frame


def _frames(footage: Footage, from_s: float) -> Iterator[tuple[float, Any]]:
    """(seconds from the beginning, frame) of all frames that can be decoded."""
    import av

    with _opened(footage.path) as container:
        stream = container.streams.video[0]
        begin_s = float((stream.start_time or 0) * stream.time_base)
        if from_s > 0:
            container.seek(int((begin_s + from_s) / stream.time_base), stream=stream, backward=True)
        count = 0
        packets = container.demux(stream)
        while True:
            try:
                decoded = next(packets).decode()
            except StopIteration:
                return
            except (av.error.InvalidDataError, av.error.EOFError):
                continue
            for frame in decoded:
                time_s = count / footage.frames_per_s if frame.time is None else frame.time - begin_s
                count += 1
                yield time_s, frame


def output_size(footage: Footage, short_side_px: int) -> tuple[int, int]:
    """Width and height at which frames are kept: no larger than they are, and even, as video codecs want them."""
    scale = min(1.0, short_side_px / min(footage.width, footage.height))
    return max(2, round(footage.width * scale) // 2 * 2), max(2, round(footage.height * scale) // 2 * 2)


class _Scaler:
    """Frames at one size; what FFmpeg prepares for it is kept from frame to frame."""

    def __init__(self, width: int, height: int) -> None:
        from av.video.reformatter import VideoReformatter

        self._size = width, height
        self._reformatter: Any = VideoReformatter()

    def rgb(self, frame: Any) -> np.ndarray:
        """The frame, upright, uint8 H W 3."""
        hd = frame.colorspace == _UNSPECIFIED and frame.height >= _HD_PX
        matrix = "ITU709" if frame.colorspace == _BT709 or hd else "DEFAULT"
        scaled = self._reformatter.reformat(
            frame, *self._size, format="rgb24", src_colorspace=matrix, interpolation="AREA"
        )
        return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), round(frame.rotation / 90)))
