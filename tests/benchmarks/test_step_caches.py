"""The benchmark of step caches on a random model: its table, its counts, and what it calibrates."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from chronoedit.model.random_checkpoint import write_random_checkpoint
from chronoedit.model.settings import read_settings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "step_caches.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_step_caches", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_it_calibrates_a_model_and_measures_its_caches(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_random_checkpoint(tmp_path / "model", image_branch=False)
    options = {"model": str(model), "items": 1, "num_inference_steps": 12}
    benchmark.main(benchmark.Options(calibrate=True, **options))
    found = json.loads(capsys.readouterr().out)
    assert len(found["mag_ratios"]) == 12 and found["mag_ratios"][0][1] == 1.0
    settings = json.loads((model / "chronoedit.json").read_text())
    benchmark.keep(str(model), found["mag_ratios"])
    benchmark.keep(str(model), found["mag_ratios"])
    assert json.loads((model / "chronoedit.json").read_text()) == {**settings, **found}
    assert [list(pair) for pair in read_settings(model, name="x").mag_ratios] == found["mag_ratios"]

    caches = ("first-block:0", "first-block:1", "mag:1")
    page = tmp_path / "page.md"
    page.write_text("<!-- step caches: begin -->\n<!-- step caches: end -->\n")
    benchmark.main(benchmark.Options(output=tmp_path / "out", caches=caches, update=page, **options))
    rows = [line.strip("| ").split(" | ") for line in (tmp_path / "out" / "table.md").read_text().splitlines()[2:]]
    assert [row[0] for row in rows] == ["none", *caches, "guidance-until 0.5"]
    assert [row[1] for row in rows[:2]] == ["24.0 of 24"] * 2 and rows[-1][1] == "18.0 of 18"
    # Of 12 steps mag computes the first 3, of the next 9 a fourth each, and the last; the others run one block of two.
    assert rows[3][1] == "12.0 of 24" and rows[3][2] == "75%"
    assert {row[4] for row in rows} == {"0.0% (0% to 0%)"} and rows[1][5] == "+0.0 (+0.0 to +0.0)"
    assert "Items: 1, without reasoning" in page.read_text() and "| mag:1 | 12.0 of 24 | 75% |" in page.read_text()


def test_seconds_are_those_of_whole_edits_each_way(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_random_checkpoint(tmp_path / "model", image_branch=False)
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    caches = ("first-block:0.1",)
    options = benchmark.Options(
        seconds=True, model=str(model), items=1, num_inference_steps=11, caches=caches, output=tmp_path / "out"
    )
    benchmark.main(options)
    found = json.loads(capsys.readouterr().out)
    assert benchmark.timed_seconds(options) == found
    assert list(found) == ["none", "first-block:0.1", "guidance-until 0.5"] and min(found.values()) > 0
