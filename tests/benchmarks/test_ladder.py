"""The ladder and the cost curves, at their smallest, from the weights to the page."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, folder: Path, *flags: str) -> str:
    """Run a script of the benchmarks that updates a page; the page."""
    name, page = script.removesuffix(".py"), folder / "page.md"
    page.write_text(f"before\n<!-- {name}: begin -->\nold\n<!-- {name}: end -->\nafter\n")
    command = [sys.executable, str(BENCHMARKS / script), "--output-dir", str(folder), "--update", str(page), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    return text


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], str]:
    folder = tmp_path_factory.mktemp("ladder")
    page = run("ladder.py", folder, "--scale", "smallest", "--repeats", "1")
    return json.loads((folder / "ladder.json").read_text()), page


def test_rungs_compute_what_diffusers_computes(ladder: tuple[list[dict[str, Any]], str]) -> None:
    rows, _ = ladder
    assert {row["frames"] for row in rows} == {2, 8}
    assert all(row["largest_difference"] < 1e-5 for row in rows if row["rung"] != "fp8 linears")


def test_each_of_the_first_rungs_has_less_to_compute(ladder: tuple[list[dict[str, Any]], str]) -> None:
    rows, _ = ladder
    names = list(dict.fromkeys(row["rung"] for row in rows))
    assert names[:3] == ["ours", "prompt keys once", "padding collapsed"]
    for frames in (2, 8):
        flops = [row["flops"] for row in rows if row["frames"] == frames][:3]
        assert flops[0] > flops[1] > flops[2] > 0
        assert all(row["seconds"] > row["bound_s"] > 0 for row in rows)


def test_page_has_a_line_a_rung_or_says_why_not(ladder: tuple[list[dict[str, Any]], str]) -> None:
    rows, page = ladder
    for row in rows:
        assert f"| {row['rung']} | {row['frames']} | {row['tokens']} |" in page
    assert "Not here:" in page  # a CPU lacks the last rungs


def test_unknown_rung_is_refused_by_name(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "ladder.py"), "--rungs", "warp", "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "'warp'" in done.stderr and "prompt keys once" in done.stderr


def test_curves_measure_each_point_and_draw_them(tmp_path: Path) -> None:
    short = {"steps": "1 2", "reasoning-steps": "0 1", "side-px": "64 80", "words": "2 4", "variants": "1 2"}
    flags = [word for name, values in short.items() for word in (f"--{name}", *values.split())]
    page = run("curves.py", tmp_path, *flags, "--repeats", "1")
    rows = json.loads((tmp_path / "curves.json").read_text())
    assert [row["point"]["curve"] for row in rows[::2]] == ["steps", "reasoning_steps", "side_px", "words", "variants"]
    for low, high in zip(rows[::2], rows[1::2], strict=True):
        assert high["bound_s"]["total"] > low["bound_s"]["total"] > 0
        assert low["stages_s"]["total"] > low["bound_s"]["total"]
    assert page.count("| variants | 2 |") == 1
    drawn = ET.parse(tmp_path / "curves.svg").getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}svg")) == 5
