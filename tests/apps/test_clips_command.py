"""`chronoedit data clips`: what it prints and writes, its flags, exit codes, and going on after kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.apps.commands.clips import CutClips
from chronoedit.apps.main import main
from chronoedit.data.clips import ClipSettings
from chronoedit.data.spans import Limits
from chronoedit.ledger import Ledger
from chronoedit.media import read_video, save_video

from ..data.scenery import film


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two videos: two shots of which one has a pan, and one in which nothing moves."""
    folder = tmp_path_factory.mktemp("videos")
    save_video(np.concatenate([film(31, 0), film(31, 1, pan_px=60)]), folder / "a.mp4", fps=10)
    save_video(film(30, 2, moves_px=0), folder / "deeper" / "b.mkv", fps=10)
    return folder


def test_a_folder_of_videos(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    assert main(["data", "clips", str(folder), "--output", str(out), "--seconds", "2.8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{out}: 1 clips of 29 frames from 2 videos, 9 s"
    assert lines[1] == "  spans rejected: 5"
    assert any(line.endswith("1 camera: the camera moves, or nearly everything does") for line in lines)
    assert any(line.endswith("1 alike: too little differs between first and last frame") for line in lines)
    assert lines[-1] == f"  look at {out / 'sheet.png'}; captions: chronoedit label {out}"
    assert len(read_video(next((out / "videos").iterdir()))) == 29
    assert Image.open(out / "sheet.png").width > 700
    assert main(["data", "check", str(out)]) == 1
    assert "problems: 1 caption (has no caption)" in capsys.readouterr().out


def test_as_json_with_every_flag(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--min-change", "0.02", "--max-change", "0.4", "--max-blur", "0.7"]
    words = ["--seconds", "2.8", *limits, "--max-per-shot", "1", "--short-side-px", "68", "--json"]
    assert main(["data", "clips", str(folder / "a.mp4"), "-o", str(tmp_path), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["clips"], found["videos"], found["failed"]) == (1, 1, {})
    assert json.loads((tmp_path / "clips.json").read_text()) == {
        "seconds": 2.8,
        "limits": {"min_change": 0.02, "max_change": 0.4, "max_blur": 0.7},
        "max_per_shot": 1,
        "short_side_px": 68,
    }
    (record,) = Ledger(tmp_path / "clips.jsonl").records()
    assert (record["width"], record["height"]) == (120, 68)


def test_defaults_are_those_of_the_library() -> None:
    command = CutClips(videos=(), output=Path("out"))
    defaults, limits = ClipSettings(), Limits()
    assert [command.seconds, command.max_per_shot, command.short_side_px] == [
        defaults.seconds,
        defaults.max_per_shot,
        defaults.short_side_px,
    ]
    assert Limits(min_change=command.min_change, max_change=command.max_change, max_blur=command.max_blur) == limits


def test_a_video_that_cannot_be_read_fails_and_the_others_are_cut(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    words = [str(tmp_path / "broken.mp4"), str(folder / "a.mp4"), "--output", str(tmp_path / "set"), "--seconds", "2.8"]
    assert main(["data", "clips", *words]) == 1
    told = capsys.readouterr()
    assert "1 clips of 29 frames from 1 videos" in told.out
    assert "  not read: " in told.out and "broken.mp4 is not a video that can be read" in told.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.mp4"], 1, "there is no nowhere.mp4"),
        ([], 2, "no video was given"),
        (["a.mp4", "--seconds", "-1"], 2, "give more than 0"),
        (["a.mp4", "--min-change", "0.6"], 2, "min_change below max_change"),
        (["a.mp4", "--max-per-shot", "0"], 2, "give 1 or more"),
        (["a.mp4", "--short-side-px", "3"], 2, "give 16 or more"),
    ],
)
def test_what_is_refused(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert main(["data", "clips", "--output", str(tmp_path / "set"), *words]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_kill_9_loses_and_doubles_nothing(tmp_path: Path) -> None:
    video = tmp_path / "long.mp4"
    save_video(np.concatenate([film(30, seed) for seed in range(12)]), video, fps=10)
    words = ["data", "clips", str(video), "--seconds", "2.8", "--output"]
    record = tmp_path / "killed" / "clips.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "chronoedit", *words, str(tmp_path / "killed")])
    while process.poll() is None and (not record.exists() or len(record.read_bytes().splitlines()) < 3):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "metadata.csv").exists()
    for name in ("killed", "whole"):
        assert main([*words, str(tmp_path / name)]) == 0
    for name in ("clips.jsonl", "progress.jsonl"):
        records = [Ledger(tmp_path / job / name).records() for job in ("killed", "whole")]
        assert records[0] == records[1]
    tables = [(tmp_path / job / "metadata.csv").read_text() for job in ("killed", "whole")]
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 13
    assert len(record.read_text().splitlines()) == 12
