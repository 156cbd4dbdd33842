"""What a training set's check finds: each planted fault with its row, and nothing in a clean set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.data.check import KINDS, check, shift_px
from chronoedit.data.export import Export, export_world
from chronoedit.data.formats import open_records
from chronoedit.media import save_image
from chronoedit.world import sample_item

from .conftest import pair, picture, write_table


def rows_of(folder: Path, pairs: list[tuple[np.ndarray, np.ndarray, str]]) -> None:
    rows = []
    for index, (before, after, prompt) in enumerate(pairs):
        for name, pixels in (("in", before), ("out", after)):
            save_image(Image.fromarray(pixels), folder / f"{name}{index}.png")
        rows.append({"image": f"out{index}.png", "prompt": prompt, "input_image": f"in{index}.png"})
    write_table(folder / "metadata.csv", rows)


def test_clean_sets_have_no_problems(any_set: tuple[str, Path]) -> None:
    report = check(open_records(any_set[1]).records)
    assert report.problems == []
    assert (report.records, report.kinds, report.sizes) == (2, Counter(pair=2), Counter({"48x48": 2}))


def test_the_world_is_clean(tmp_path: Path) -> None:
    export_world(Export(count=12, clip_share=0.25), tmp_path)
    done: list[int] = []
    report = check(open_records(tmp_path).records, lambda k, total: done.append(k))
    assert report.problems == []  # still scenes included: their captions say so
    assert report.kinds == Counter(pair=9, clip=3)
    assert done == list(range(1, 13))
    sheet = report.sheet()
    assert sheet is not None and sheet.height > 12 * 128


def test_planted_faults_are_found(tmp_path: Path) -> None:
    before, after = pair(0)
    others = [pair(k)[1] for k in (1, 2)]
    moved = np.roll(picture(7), (6, 9), axis=(0, 1))
    faults = [
        (before, after, "paint it"),
        (before, others[0], "paint it"),
        (before, others[1], "paint it"),
        (picture(9), before, "swapped: after is what others start from"),
        (picture(3), pair(3)[1], "  "),
        (picture(4), picture(4), "paint it"),
        (picture(5), picture(5), "change nothing"),
        (picture(7), moved, "paint it"),
        (before, after, "paint it"),
        (picture(8), picture(8)[:32], "paint it"),
    ]
    rows_of(tmp_path, faults)
    report = check(open_records(tmp_path).records)
    found = {(problem.row.split(":")[1], problem.kind) for problem in report.problems}
    assert found == {("5", "swapped"), ("6", "caption"), ("7", "unchanged"), ("9", "unaligned"), ("10", "repeated"),
                     ("11", "broken")}  # fmt: skip
    assert {problem.kind for problem in report.problems} == set(KINDS)
    assert all(problem.message for problem in report.problems)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (12, 0), (-8, 16), (4, -4)])
def test_shift_is_measured(dx: int, dy: int) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(wide).resize((256, 256), Image.Resampling.BICUBIC))
    before, after = wide[40:168, 40:168], wide[40 - dy : 168 - dy, 40 - dx : 168 - dx]
    assert shift_px(before, after) == (dx, dy)


@pytest.mark.parametrize("seed", range(12))
def test_edits_are_no_shift(seed: int) -> None:
    item = sample_item(seed)
    assert shift_px(item.input, item.target) == (0, 0)
