"""examples/star: its set, its recipe and its figures."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from chronoedit.apps.main import main
from chronoedit.apps.recipe_file import with_recipe
from chronoedit.media import save_image
from chronoedit.world import SCENES, Item, sample_item
from chronoedit.world.render import render
from chronoedit.world.scenes import MIX
from chronoedit.world.scenes.star import held_out
from chronoedit.world.splits import HARD_EDITS
from chronoedit.world.state import Body

STAR = Path(__file__).parents[1] / "examples" / "star"


def script(name: str, patch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, STAR / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_the_set_is_read_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--pairs", "3", "--clips", "1", "--rehearsed", "2", "--rehearsed-clips", "1"]
    monkeypatch.setattr(sys, "argv", ["make_set.py", "--output", str(tmp_path), *words])
    script("make_set", monkeypatch).main()
    assert main(["data", "check", str(tmp_path / "metadata.jsonl")]) == 0
    assert "5 pairs, 2 clips" in capsys.readouterr().out
    first = json.loads((tmp_path / "metadata.jsonl").read_text().splitlines()[0])
    assert "star" in first["prompt"]


def test_known_edits_may_be_rehearsed_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    known_items = script("make_set", monkeypatch).known_items
    edits = {edit for family in MIX for edit in SCENES[family].edits} - HARD_EDITS
    counts = Counter(item.edit for item in known_items(2 * len(edits), evenly=True))
    assert counts == dict.fromkeys(edits, 2)
    assert [item.seed for item in known_items(3, evenly=False)] == [50_000, 50_001, 50_002]


def test_every_line_of_the_recipe_is_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "lora", "--config", str(STAR / "star.toml"), "--output-path", str(tmp_path / "out")]
    assert "--lora-rank" in with_recipe(words)
    assert main([*words, "--dataset-metadata-path", str(tmp_path / "nowhere.csv")]) == 1
    assert "nowhere.csv" in capsys.readouterr().err  # the set is missed, no flag is


def write_run(folder: Path, family: str | None, pictures: dict[int, np.ndarray]) -> Path:
    lines = []
    for seed, picture in pictures.items():
        item = sample_item(seed, family=family)
        save_image(Image.fromarray(picture), folder / "images" / f"{seed}-model.png")
        rows = {"model": {"success": True}, "copy": {"success": False}}
        lines.append(json.dumps({"key": str(seed), "seed": seed, "family": item.family, "rows": rows}))
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_parts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = range(100_000, 100_010)
    run = write_run(tmp_path, "star", {seed: sample_item(seed, family="star").target for seed in seeds})
    script("figures", monkeypatch).parts(run)
    free = sum(held_out(sample_item(seed, family="star").scene) == () for seed in seeds)
    printed = capsys.readouterr().out
    assert "| all | 100.0% (100% to 100%) | 0.0% (0% to 0%) | 10 |" in printed
    assert f"| nothing held out | 100.0% (100% to 100%) | 0.0% (0% to 0%) | {free} |" in printed


def test_stars_that_nobody_asked_for_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean, other = (sample_item(seed, family="any", edit="nothing") for seed in (100_000, 100_001))
    star = Body(**{**other.end.bodies[0].__dict__, "kind": "star"})
    pictures = {100_000: clean.target, 100_001: render(other.end.with_body(star), 128)}
    module = script("figures", monkeypatch)
    monkeypatch.setattr(module, "sample_item", lambda seed, family: {100_000: clean, 100_001: other}[seed])
    module.strays(write_run(tmp_path, "any", pictures))
    assert capsys.readouterr().out.startswith("1 of 2 pictures")


def test_the_curve_is_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"step": 10 * k, "minutes": k / 4, "loss": 1 / k} for k in range(1, 9)] + [{"step": 80, "minutes": 2.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    script("figures", monkeypatch).curve(tmp_path, tmp_path / "curve.svg")
    text = (tmp_path / "curve.svg").read_text()
    assert text.startswith("<svg") and 'xmlns="http://www.w3.org/2000/svg"' in text and "minutes" in text


def test_scenes_shown_are_one_of_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [held_out(item.scene) for item in script("figures", monkeypatch)._shown()]
    assert sorted(shown) == [(), (), ("backdrop",), ("colour",), ("kind",)]


def test_the_report_is_written_from_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stars = {seed: sample_item(seed, family="star").target for seed in (100_000, 100_001)}
    known = [sample_item(seed, family="any", edit="nothing") for seed in (100_000, 100_001)]
    module = script("figures", monkeypatch)
    for name in ("before", "after"):
        write_run(tmp_path / name, "star", stars)
        write_known(tmp_path / f"known_{name}", known, successes=1 if name == "before" else 2)
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/log.jsonl").write_text(json.dumps({"step": 450, "minutes": 15.5, "loss": 0.1}) + "\n")
    monkeypatch.setattr(module, "_has_star", lambda record, folder, row: folder.name == "known_after")
    page = tmp_path / "page.md"
    page.write_text("# Page\n<!-- star: begin -->\nold\n<!-- star: end -->\n")
    module.report(tmp_path, page)
    text = page.read_text()
    assert "old" not in text and "Training: 450 steps in 16 minutes" in text
    assert "| all | 50.0% (0% to 100%) | 100.0% (100% to 100%) | +50.0 (+0.0 to +100.0) |" in text
    assert "Of 2 pictures of known edits 2 have a star that nobody asked for, 0 before." in text
    write_known(tmp_path / "world", known, successes=0, row="no_reasoning")
    module.report(tmp_path, page, known=tmp_path / "world", known_row="no_reasoning")
    assert "| all | 0.0% (0% to 0%) | 100.0% (100% to 100%) | +100.0 (+100.0 to +100.0) |" in page.read_text()


def write_known(folder: Path, items: list[Item], successes: int, row: str = "model") -> None:
    folder.mkdir()
    about = [
        {"key": str(i.seed), "seed": i.seed, "family": "any", "edit": "nothing", "prompt": i.prompt} for i in items
    ]
    rows = [{row: {"success": k < successes}} for k in range(len(items))]
    lines = [json.dumps({**each, "rows": found}) for each, found in zip(about, rows, strict=True)]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
