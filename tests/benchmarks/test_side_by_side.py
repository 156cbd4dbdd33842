"""The side-by-side benchmark, at its smallest, from the checkpoint to the table; and what its prediction must say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OPTIONS = {"tokens": 128, "kinds": "reasoning", "steps": 3, "heads": 1, "layers": 1, "autoencoder-dim": 4}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], str]:
    folder = tmp_path_factory.mktemp("bench")
    page = folder / "page.md"
    page.write_text("before\n<!-- side by side: begin -->\nold\n<!-- side by side: end -->\nafter\n")
    command = [sys.executable, str(BENCHMARKS / "side_by_side.py"), "--output-dir", str(folder)]
    command += [word for name, value in OPTIONS.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([*command, "--update", str(page)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "side_by_side.json").read_text()), page.read_text()


def test_both_engines_make_the_same_picture(results: tuple[list[dict[str, Any]], str]) -> None:
    (row,), _ = results
    assert row["largest_difference"] <= 2  # of 255: two fp32 computations, rounded to bytes


def test_costs_are_measured_for_both(results: tuple[list[dict[str, Any]], str]) -> None:
    (row,), _ = results
    for engine in ("ours", "theirs"):
        cost = row[engine]
        assert cost["step_s"] > 0
        assert 0 < cost["decode_s"] < cost["whole_s"]
        assert cost["peak_bytes"] > cost["before_bytes"] > 2**27  # torch alone is more than 128 MiB


def test_prediction_agrees_with_counting_by_hand(results: tuple[list[dict[str, Any]], str]) -> None:
    (row,), _ = results
    width, text_dim, image_dim = 128, 32, 32
    keys_and_values = 2 * 2 * (512 + 257) * width * width  # 2 FLOPs a multiply-add, keys and values, one block
    text = 2 * 512 * (text_dim * width + width * width)
    image = 2 * 257 * (image_dim * image_dim + image_dim * width)
    assert row["predicted"]["per_request_flops"] == keys_and_values + text + image
    # 25 + 5 pixel frames against 5; the first latent frame costs less than the others
    assert 0.75 < row["predicted"]["decode_saving"] < 25 / 30


def test_page_is_updated_between_its_comments(results: tuple[list[dict[str, Any]], str]) -> None:
    _, page = results
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "old" not in page
    assert re.search(r"^Command: `python benchmarks/side_by_side.py .*`  $", page, flags=re.MULTILINE)
    assert page.count("| 128 | 64×64 |") == 1
