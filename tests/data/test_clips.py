"""Clips on disk: the published layout, duplicates over videos, stopping at any moment, more videos, captions kept."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.data import clips as module
from chronoedit.data.check import check
from chronoedit.data.clips import ClipSettings, cut_clips
from chronoedit.data.formats import open_records
from chronoedit.data.spans import Limits
from chronoedit.errors import OutputError
from chronoedit.ledger import Ledger
from chronoedit.media import read_video, save_video

from .scenery import film, real_video

SETTINGS = ClipSettings(seconds=2.8)  # at 10 frames a second each frame of the video is one of the clip


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two: clips, a pan and a clip; a clip, one that the first video has too, and a rest."""
    folder = tmp_path_factory.mktemp("videos")
    first = np.concatenate([film(58, 0), film(36, 1, pan_px=60), film(30, 2)])
    second = np.concatenate([film(30, 3), film(58, 0)[:30], film(30, 4, moves_px=0)])
    save_video(first, folder / "the first.mp4", fps=10)
    save_video(second, folder / "second.mkv", fps=10)
    return [folder / "the first.mp4", folder / "second.mkv"]


@pytest.fixture(scope="module")
def done(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, module.ClipReport]:
    folder = tmp_path_factory.mktemp("set")
    return folder, cut_clips(videos, folder, SETTINGS)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, object]:
    """What a job leaves, whatever way it went: lines of the records as they count, tables, videos."""
    records = {name: Ledger(folder / name).records() for name in ("clips.jsonl", "progress.jsonl")}
    files = {path.name: len(read_video(path)) for path in (folder / "videos").iterdir()}
    return {**records, "table": table(folder), "videos": files}


def test_the_published_layout(done: tuple[Path, module.ClipReport]) -> None:
    folder, report = done
    rows = table(folder)
    assert list(rows[0]) == ["key", "video", "prompt"] and report.clips == len(rows) == 4
    assert [row["key"].split("_")[0] for row in rows] == ["the-first"] * 3 + ["second"]
    assert [row["key"].split("_")[2] for row in rows] == ["00000000", "00002800", "00009400", "00000000"]
    found = check(open_records(folder).records)
    assert found.kinds == Counter(clip=4) and {problem.kind for problem in found.problems} == {"caption"}


def test_clips_hold_the_frames_that_the_record_says(videos: list[Path], done: tuple[Path, module.ClipReport]) -> None:
    folder, _ = done
    for line in (folder / "clips.jsonl").read_text().splitlines():
        record = json.loads(line)
        source = read_video(record["source"]).astype(int)
        clip = read_video(folder / record["video"])
        first, last = round(record["start_s"] * 10), round(record["end_s"] * 10)
        assert clip.shape == (29, record["height"], record["width"], 3) and last - first == 28
        assert np.abs(clip - source[first : last + 1]).mean() < 4
        assert 0.01 < record["change"] <= record["max_change"] < 0.5 and record["blur"] < 0.55


def test_reasons_are_counted_over_videos(done: tuple[Path, module.ClipReport]) -> None:
    _, report = done
    assert report.rejected == Counter(short=6, camera=2, alike=1, duplicate=1)
    assert (report.videos, report.failed) == (2, {}) and report.seconds == pytest.approx(21.4)
    assert module.reasons(report.rejected)[0] == "     6 short: the shot ends before the clip is full"


def test_the_sheet_shows_each_clip(done: tuple[Path, module.ClipReport], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = done
    sheet = Image.open(folder / "sheet.png")
    assert sheet.width > 3 * 240 and sheet.height > 4 * 136
    monkeypatch.setattr(module, "SHEET_ROWS", 2)
    fewer = module.clip_sheet(folder, Ledger(folder / "clips.jsonl").records())
    assert fewer is not None and fewer.height < sheet.height * 0.6


class Killed(BaseException):
    """The job dies here."""


def dies_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job dies at a moment: 0 before the first write, 1 after it, 2 after the second, ..."""
    writes = itertools.count(1)

    def dying(write):
        def wrapped(*arguments, **named):
            if moment == 0:
                raise Killed
            write(*arguments, **named)
            if next(writes) == moment:
                raise Killed

        return wrapped

    monkeypatch.setattr(module, "save_video", dying(save_video))
    monkeypatch.setattr(Ledger, "append", dying(Ledger.append))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path, module.ClipReport]:
    """Videos of two clips and a rest, and of the second of these again and another; with what a whole job makes."""
    folder = tmp_path_factory.mktemp("few")
    save_video(np.concatenate([film(30, 5), film(36, 6)]), folder / "a.mp4", fps=10)
    save_video(np.concatenate([film(36, 6), film(29, 7)]), folder / "b.mp4", fps=10)
    paths = [folder / "a.mp4", folder / "b.mp4"]
    return paths, folder / "set", cut_clips(paths, folder / "set", SETTINGS)


MOMENTS = 11  # three clips, each a video and two lines, and a line for each video that is done


@pytest.mark.parametrize("moment", range(MOMENTS + 1))
def test_killed_at_any_moment_nothing_is_lost_or_doubled(
    moment: int,
    few: tuple[list[Path], Path, module.ClipReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths, whole, report = few
    monkeypatch.setattr(module, "clip_sheet", lambda *arguments: None)  # half of the time, and no part of this
    with monkeypatch.context() as patch:
        dies_at(moment, patch)
        with pytest.raises(Killed):
            cut_clips(paths, tmp_path, SETTINGS)
    assert cut_clips(paths, tmp_path, SETTINGS) == report
    assert contents(tmp_path) == contents(whole)
    assert report.clips == 3 and report.rejected["duplicate"] == 1


def test_more_videos_add_to_a_set_whose_captions_stay(videos: list[Path], tmp_path: Path) -> None:
    first = cut_clips(videos[:1], tmp_path, SETTINGS)
    rows = [{**row, "prompt": f"caption {k}", "model": "m"} for k, row in enumerate(table(tmp_path))]
    with (tmp_path / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    both = cut_clips(videos, tmp_path, SETTINGS)
    assert (first.clips, both.clips) == (3, 4)
    assert [row["prompt"] for row in table(tmp_path)] == ["caption 0", "caption 1", "caption 2", ""]
    assert [row["model"] for row in table(tmp_path)] == ["m", "m", "m", ""]


def test_a_copy_under_another_name_is_read_once(videos: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copy(videos[0], tmp_path / "copy.mp4"))
    told: list[tuple[Path, float, float]] = []
    report = cut_clips([videos[0], copy], tmp_path / "set", SETTINGS, lambda *state: told.append(state))
    assert report.clips == 3 and report.videos == 1
    assert {video for video, _, _ in told} == {videos[0]}
    assert [seconds for _, seconds, _ in told] == sorted(seconds for _, seconds, _ in told)
    assert told[-1][1:] == pytest.approx((12.4, 12.4), abs=0.11)


def test_a_shot_gives_no_more_than_it_may(videos: list[Path], tmp_path: Path) -> None:
    report = cut_clips(videos[:1], tmp_path, ClipSettings(seconds=2.8, max_per_shot=1))
    assert report.clips == 2 and report.rejected["enough"] == 1


def test_time_is_what_a_clip_spans(videos: list[Path], tmp_path: Path) -> None:
    cut_clips(videos[:1], tmp_path, ClipSettings(seconds=5.6, short_side_px=68))
    (record,) = Ledger(tmp_path / "clips.jsonl").records()
    assert (record["start_s"], record["end_s"], record["width"], record["height"]) == (0.0, 5.6, 120, 68)


def test_videos_that_cannot_be_read_are_told_of(videos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(videos[0].read_bytes()[:2000])
    save_video(film(8), tmp_path / "slow.mp4", fps=2)
    report = cut_clips([tmp_path / "cut.mp4", tmp_path / "slow.mp4", videos[0]], tmp_path / "set", SETTINGS)
    assert report.clips == 3
    cut, slow = report.failed.values()
    assert "cut.mp4 is not a video that can be read" in cut
    assert "slow.mp4 has 2 frames a second, too few for 29 in 2.8 s; give --seconds 14.0 or more" in slow


def test_a_video_of_one_frame_is_refused(tmp_path: Path) -> None:
    save_video(film(1), tmp_path / "one.mp4", fps=10)
    report = cut_clips([tmp_path / "one.mp4"], tmp_path / "set", SETTINGS)
    assert "no two frames of" in report.failed[str(tmp_path / "one.mp4")]
    assert table(tmp_path / "set") == [] and not (tmp_path / "set" / "sheet.png").exists()


def test_a_clip_that_is_thrown_away_stays_away(videos: list[Path], tmp_path: Path) -> None:
    cut_clips(videos[:1], tmp_path, SETTINGS)
    rows = table(tmp_path)
    (tmp_path / rows[1]["video"]).unlink()
    (tmp_path / "metadata.csv").unlink()
    cut_clips(videos[:1], tmp_path, SETTINGS)
    assert table(tmp_path) == [rows[0], rows[2]]


def test_a_set_keeps_to_its_settings(videos: list[Path], tmp_path: Path) -> None:
    cut_clips(videos[:1], tmp_path, SETTINGS)
    with pytest.raises(OutputError, match="holds clips of other settings"):
        cut_clips(videos[:1], tmp_path, ClipSettings(seconds=2.8, limits=Limits(max_blur=0.9)))
    (tmp_path / "metadata.csv").write_text("a,b\n1,2\n")
    with pytest.raises(OutputError, match="has the columns a, b, not key, video, prompt"):
        cut_clips(videos[:1], tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seconds": 0}, "a clip of 0 seconds"),
        ({"seconds": float("nan")}, "a clip of nan seconds"),
        ({"max_per_shot": 0}, "at most 0 clips a shot"),
        ({"short_side_px": 8}, "a short side of 8 px"),
    ],
)
def test_settings_that_make_no_sense(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipSettings(**values)


def test_a_real_video_gives_a_real_clip(tmp_path: Path) -> None:
    report = cut_clips([real_video("bigbuckbunny.mp4")], tmp_path, ClipSettings(seconds=1.12, short_side_px=360))
    (row,) = table(tmp_path)
    clip = read_video(tmp_path / row["video"])
    assert clip.shape == (29, 360, 640, 3) and report.rejected["camera"] > 5
