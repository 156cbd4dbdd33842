"""`chronoedit data check`: counts, faults with their rows, exit codes, the sheet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from chronoedit.apps.main import main
from chronoedit.data.export import Export, export_world


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export_world(Export(count=3, first_seed=20, clip_share=0.34), tmp_path / "set")
    return tmp_path / "set"


def test_clean_set(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(folder), "--sheet", str(tmp_path / "sheet.png")]) == 0
    text = capsys.readouterr().out
    for line in ("3 rows (csv)", "readable: 2 pairs, 1 clips", "sizes: 128x128 (3)", "problems: none"):
        assert line in text
    assert Image.open(tmp_path / "sheet.png").width > 2 * 128


def test_faults_are_listed_and_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "videos" / "world_000021.mp4").write_bytes(b"cut")
    assert main(["data", "check", str(folder / "metadata.csv")]) == 1
    assert "metadata.csv:3: broken: " in capsys.readouterr().out
    assert main(["data", "check", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [problem["row"] for problem in found["problems"]] == ["metadata.csv:3"]


def test_cache_is_made_once_and_training_uses_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = str(tmp_path / "cache")
    sizes = ["--height", "32", "--width", "32", "--num-frames", "5"]
    assert main(["data", "cache", str(folder / "metadata.csv"), "--output", cache, *sizes]) == 0
    assert "3 examples, " in capsys.readouterr().out
    assert main(["data", "cache", str(folder), "--output", cache, *sizes]) == 0
    assert "3 examples, 0 tensors added" in capsys.readouterr().out
    before = sorted(path.name for path in Path(cache).iterdir())
    run = ["--dataset-metadata-path", str(folder), "--output-path", str(tmp_path / "run"), "--max-steps", "1"]
    assert main(["train", "lora", *run, *sizes, "--cache", cache, "--lora-rank", "2"]) == 0
    assert sorted(path.name for path in Path(cache).iterdir()) == before
    assert not (tmp_path / "run" / "cache").exists()
    assert main(["data", "cache", str(folder), "--output", cache, "--num-frames", "3"]) == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere"], 1, "there is no nowhere"),
        (["SET", "--sheet", "sheet.gif"], 2, "ends in '.gif'"),
    ],
)
def test_what_is_refused(
    folder: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", *(str(folder) if word == "SET" else word for word in words)]) == code
    assert message in capsys.readouterr().err
