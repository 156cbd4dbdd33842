"""The benchmark of batches: its inputs, what it compares, and its table; the ways themselves are slow and not run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "batch.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_batches", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_each_way_gets_the_same_edits_and_the_flags(benchmark, tmp_path: Path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(benchmark.subprocess, "run", lambda words, env, **_: calls.append((words, env)))
    settings = benchmark.Settings(items=3, commands=2, batch_size=5, threads=7)
    job = benchmark.Job(settings, tmp_path)
    job.write_inputs()
    rows = job.rows()
    assert len(rows) == 3 and all(Path(row["image"]).exists() and row["prompt"] for row in rows)
    for number, way in enumerate(benchmark.WAYS.values()):
        assert way(job, tmp_path / str(number)) >= 0
    assert len(calls) == 1 + 1 + 1 + 2
    assert calls[0][0][-2:] == ["--batch-size", "5"] and str(job.manifest) in calls[2][0]
    assert rows[1]["image"] in calls[4][0] and rows[1]["seed"] in calls[4][0]
    assert [env["OMP_NUM_THREADS"] for _, env in calls] == ["7", "1", "7", "7", "7"]


def test_the_table_says_how_many_times_as_many(benchmark) -> None:
    seconds = {
        "chronoedit batch": [10.0, 9.0, 50.0],
        "single calls in one process": [12.5],
        "a command line each": [40.0],
    }
    lines = benchmark.table(benchmark.Settings(items=100), seconds).splitlines()
    assert lines[2] == "| chronoedit batch | 10.00 | 0.100 | 1.25x |"
    assert lines[4] == "| a command line each | 2.50 | 0.400 | 0.31x |"


def test_pictures_are_compared_by_their_edit(benchmark, tmp_path: Path) -> None:
    for folder, name, level in (("a", "0-0", 7), ("a", "1-1", 9), ("b", "1", 12)):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(tmp_path / folder / f"{name}.png")
    assert benchmark.largest_difference([tmp_path / "a", tmp_path / "b"]) == 3


def test_the_page_gets_the_table_with_what_was_run(benchmark, tmp_path: Path, monkeypatch) -> None:
    def way(job, output: Path) -> float:
        output.mkdir()
        Image.fromarray(np.full((4, 4, 3), len(job.rows()), np.uint8)).save(output / "0.png")
        return 2.0

    ways = ("chronoedit batch", "single calls in one process")
    monkeypatch.setattr(benchmark, "WAYS", dict.fromkeys(ways, way))
    page = tmp_path / "page.md"
    page.write_text("<!-- batch: begin -->\nold\n<!-- batch: end -->\n")
    benchmark.main(benchmark.Settings(items=2, commands=1, repeats=1, update=page))
    text = page.read_text()
    assert "old" not in text and "| chronoedit batch | 1.00 | 1.000 | 1.00x |" in text
    assert "2 edits (by a command line each 1, multiplied up), 1 run(s)" in text and "at most 0 of 255" in text
