"""`chronoedit world` and `chronoedit eval` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.apps.main import main
from chronoedit.evaluation.run import read_records
from chronoedit.media import read_video
from chronoedit.model.checkpoint import write_random_checkpoint
from chronoedit.world import sample_item

ITEM_FILES = {"input.png", "target.png", "mask.png", "trajectory.mp4", "item.json"}


def test_one_sample(tmp_path: Path) -> None:
    assert main(["world", "sample", "--family", "table", "--seed", "5", "--output", str(tmp_path)]) == 0
    item = sample_item(5, family="table")
    assert {path.name for path in tmp_path.iterdir()} == ITEM_FILES
    assert np.array_equal(np.asarray(Image.open(tmp_path / "input.png")), item.input)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "target.png")), item.target)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png").convert("L")) > 0, item.edit_mask)
    assert read_video(tmp_path / "trajectory.mp4").shape == (29, 128, 128, 3)
    assert json.loads((tmp_path / "item.json").read_text()) == json.loads(json.dumps(item.to_json()))


def test_many_samples_and_their_sheet(tmp_path: Path) -> None:
    assert main(["world", "sample", "--count", "3", "--seed", "7", "-o", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"7", "8", "9", "sheet.png"}
    assert {path.name for path in (tmp_path / "8").iterdir()} == ITEM_FILES
    assert Image.open(tmp_path / "sheet.png").width > 5 * 128


def test_samples_of_a_split_of_the_drawn_world(tmp_path: Path) -> None:
    words = ["world", "sample", "--family", "table", "--split", "held-out-count", "--seed", "9", "-o", str(tmp_path)]
    assert main(words) == 0
    item = json.loads((tmp_path / "item.json").read_text())
    assert item["split"] == "held-out count" and len(item["start"]["bodies"]) == 4
    assert item["long_prompt"].startswith("The user wants to ")
    assert item["prompt"] == sample_item(9, family="table", split="held-out count").prompt


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["world", "export", "--count", "2", "--output", str(tmp_path), "--family", "any"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "metadata.csv")
    assert len((tmp_path / "metadata.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["world", "sample", "--family", "garden"], "table, falling, any"),
        (["world", "sample", "--count", "0"], "below 1"),
        (["world", "sample", "--split", "easy"], "all, in-distribution, held-out-combination"),
        (["world", "sample", "--edit", "push"], "--family"),
        (["world", "sample", "--family", "any", "--edit", "push"], "recolour, remove"),
        (["world", "export", "--count", "1", "--first-seed", "100000"], "kept for evaluation"),
        (["eval", "world", "--first-seed", "5"], "start at 100000"),
        (["eval", "world", "--items", "0"], "1 or more"),
        (["eval", "world", "--family", "garden"], "table, falling, any, star"),
        (["eval", "world", "--trajectory"], "turn reasoning on"),
        (["eval", "world", "--step-cache", "second-block"], "first-block, mag"),
    ],
)
def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("random") / "model", image_branch=False)


def test_eval_of_a_random_model(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "world", "--model", str(checkpoint), "--items", "2", "--first-seed", "100000"]
    words += ["--num-inference-steps", "2", "--both", "--output", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "teleport" in printed and "oracle" in printed and "with reasoning less" in printed
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run.json", "items.jsonl", "summary.json", "report.html", "gallery.png", "images"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["model"]["overall"]["success"] == 0 and summary["model"]["overall"]["items"] == 2
    assert set(summary) >= {"model", "no_reasoning", "copy", "teleport", "oracle", "spoiled", "edits", "paired"}
    assert main(words) == 0  # all done: nothing is edited again, the same summary
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert main(["eval", "compare", "--a", str(tmp_path), "--b", str(tmp_path)]) == 0
    assert "+0.0%" in capsys.readouterr().out


def test_eval_of_a_single_file(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "wan.safetensors"
    assert main(["convert", str(checkpoint), str(file)]) == 0
    for name, model in (("file", [str(file), "--base", str(checkpoint)]), ("folder", [str(checkpoint)])):
        words = ["eval", "world", "--items", "1", "--num-inference-steps", "1", "--output", str(tmp_path / name)]
        assert main([*words, "--model", *model]) == 0
    (of_file,), (of_folder,) = (read_records(tmp_path / name) for name in ("file", "folder"))
    for rows in (of_file["rows"], of_folder["rows"]):
        assert rows["model"].pop("time_s") > 0
    assert of_file["rows"] == of_folder["rows"]


def test_eval_with_a_step_cache_counts_passes(checkpoint: Path, tmp_path: Path) -> None:
    words = ["eval", "world", "--model", str(checkpoint), "--items", "1", "--num-inference-steps", "12"]
    assert main([*words, "--step-cache", "first-block:1", "--output", str(tmp_path / "cached")]) == 0
    assert main([*words, "--output", str(tmp_path / "whole")]) == 0
    (cached,), (whole,) = (read_records(tmp_path / name) for name in ("cached", "whole"))
    assert whole["rows"]["model"]["passes"] == [24, 24]
    computed, total = cached["rows"]["model"]["passes"]
    assert 2 <= computed < total == 24


@pytest.mark.parametrize("words", [["world", "sample"], ["world", "export"], ["eval", "world"], ["eval", "compare"]])
def test_help_fits_a_screen(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) < 50
