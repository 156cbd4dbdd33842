"""Evenly spaced frames of a video: their times, going on in the middle, gaps, turned and damaged files."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from chronoedit.data.footage import find_footage, open_footage, samples
from chronoedit.errors import ImageError
from chronoedit.media import save_video

from .scenery import film, real_video


def write(path: Path, frames: np.ndarray, times: Sequence[int], fps: int = 10) -> Path:
    """A video whose frames are shown at `times`, in units of 1 / fps s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "bf": "0", "g": "5"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, fps)
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def greys(count: int) -> np.ndarray:
    """Frames that tell their number by their brightness."""
    return np.stack([np.full((32, 48, 3), 4 * k, np.uint8) for k in range(count)])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("footage") / "video.mp4", greys(60), range(60))


def numbers(found: list) -> list[int]:
    return [round(float(sample.pixels.mean()) / 4) for sample in found]


def test_what_a_video_is(video: Path) -> None:
    footage = open_footage(video)
    assert (footage.frames_per_s, footage.width, footage.height) == (10, 48, 32)
    assert footage.duration_s == pytest.approx(6, abs=0.2)


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_every_nth_frame(video: Path, stride: int) -> None:
    found = list(samples(open_footage(video), stride / 10, 720))
    assert [sample.index for sample in found] == list(range(len(found)))
    assert numbers(found) == list(range(0, 60, stride))
    assert [sample.time_s for sample in found] == pytest.approx([k * stride / 10 for k in range(len(found))])
    assert not any(sample.gap for sample in found)


@pytest.mark.parametrize("first", [1, 9, 13, 29, 30])
def test_going_on_in_the_middle_gives_the_same_frames(video: Path, first: int) -> None:
    footage = open_footage(video)
    whole = list(samples(footage, 0.2, 720))[first:]
    rest = list(samples(footage, 0.2, 720, first))
    assert [sample.index for sample in rest] == [sample.index for sample in whole]
    assert all((a.pixels == b.pixels).all() for a, b in zip(rest, whole, strict=True))


def test_missing_frames_are_held_or_told_of(tmp_path: Path) -> None:
    times = [*range(10), *range(12, 20), *range(30, 40)]
    footage = open_footage(write(tmp_path / "gaps.mp4", greys(28), times))
    found = [sample for sample in samples(footage, 0.1, 720) if sample.index < 40]
    assert numbers(found[:13]) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 10]
    assert [sample.index for sample in found if sample.gap] == [30]
    rest = [sample for sample in samples(footage, 0.1, 720, 11) if sample.index < 40]
    assert numbers(rest) == numbers(found[11:])


def test_large_frames_are_scaled_down(tmp_path: Path) -> None:
    save_video(film(3), tmp_path / "video.mp4", fps=10)
    first = next(samples(open_footage(tmp_path / "video.mp4"), 0.1, 68))
    assert first.pixels.shape == (68, 120, 3) and first.small.shape == (90, 160, 3)


def test_a_turned_phone_video_stands_upright(tmp_path: Path) -> None:
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    frames[:, :16, :24] = 255
    save_video(frames, tmp_path / "video.mp4", fps=10)
    data = bytearray((tmp_path / "video.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 44  # of the track's header, here for a quarter turn clockwise
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    (tmp_path / "video.mp4").write_bytes(data)
    first = next(samples(open_footage(tmp_path / "video.mp4"), 0.1, 720))
    assert first.pixels.shape == (48, 32, 3) and first.small.shape == (160, 110, 3)
    assert first.pixels[:20, 20:].mean() > 240 and first.pixels[:20, :12].mean() < 15


def test_damage_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "video.mkv", film(60), range(60))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    indices = [sample.index for sample in samples(open_footage(path), 0.1, 720)]
    assert indices[:10] == list(range(10)) and indices[-1] == 59


def test_a_copy_has_the_same_name_and_another_video_has_not(video: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(video, tmp_path / "copy.mp4"))
    other = write(tmp_path / "other.mp4", film(3), range(3))
    assert open_footage(copy).id == open_footage(video).id != open_footage(other).id


def test_videos_of_folders_each_once_but_not_what_is_written(video: Path, tmp_path: Path) -> None:
    for name in ("b.MP4", "a/c.webm", "out/d.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_footage([tmp_path, tmp_path / "b.MP4", video], without=tmp_path / "out")
    assert [path.name for path in found] == ["c.webm", "b.MP4", "video.mp4"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no .*nowhere"):
        find_footage([tmp_path / "nowhere"])
    with pytest.raises(ImageError, match="has no videos in it"):
        find_footage([tmp_path])
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ImageError, match="not a video that can be read"):
        open_footage(tmp_path / "text.mp4")


@pytest.mark.parametrize(
    ("name", "expected"), [("bikes.mp4", (640, 272, 25.0)), ("carphone_pristine.mp4", (193, 144, 29.97))]
)
def test_real_videos(name: str, expected: tuple[int, int, float]) -> None:
    footage = open_footage(real_video(name))
    assert (footage.width, footage.height, round(footage.frames_per_s, 2)) == expected  # carphone's pixels are wide
    whole = list(samples(footage, 1 / footage.frames_per_s, 720))
    assert len(whole) == round(whole[-1].time_s * footage.frames_per_s) + 1
    rest = list(samples(footage, 1 / footage.frames_per_s, 720, 77))
    assert all((a.pixels == b.pixels).all() for a, b in zip(rest, whole[77:], strict=True))
