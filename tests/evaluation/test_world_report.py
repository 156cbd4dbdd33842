"""Pages about runs of the exact benchmark, and runs of editors that are not ours."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.errors import OutputError
from chronoedit.evaluation.attempts import External
from chronoedit.evaluation.editors import Command, Folder
from chronoedit.evaluation.gallery import HEAT, error_map, item_card, item_of
from chronoedit.evaluation.run import WorldRun, image_path, read_records, run_world, strip, true_strip
from chronoedit.evaluation.summary import pairs_of
from chronoedit.evaluation.world_report import write_comparison, write_report
from chronoedit.world import FIRST_EVALUATION_SEED, sample_item

ITEMS = 4
TRUTH = """
import sys
from PIL import Image
from chronoedit.world import sample_item
Image.fromarray(sample_item(int(sys.argv[1])).target).save(sys.argv[2])
"""


class Links(HTMLParser):
    """What a page takes from elsewhere, its pictures, its tables' titles and its sections."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.pictures = 0
        self.sections: list[str] = []
        self._tag = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        for name, value in attrs:
            if name in ("src", "href", "data") and value is not None and not value.startswith("data:"):
                self.outside.append(value)
        self.pictures += tag == "img"
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data: str) -> None:
        if self._tag == "h2":
            self.sections.append(data)
        self._tag = ""


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the truth of three of the four items; one of them is spoiled, one is missing."""
    folder = tmp_path_factory.mktemp("targets")
    for seed in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + ITEMS - 1):
        Image.fromarray(sample_item(seed).target).save(folder / f"{seed}.png")
    Image.new("RGB", (128, 128), "white").save(folder / f"{FIRST_EVALUATION_SEED}.png")
    return folder


def run_of(editor: Folder | Command, folder: Path, **settings: object) -> dict:
    run = WorldRun(items=ITEMS, model=dict(editor.identity), batch_size=2)
    return run_world(lambda: External(editor), run, folder, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def of_folder(targets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("of-folder")
    return folder, run_of(Folder(path=targets), folder)


def test_a_folder_of_outputs_is_scored(of_folder: tuple[Path, dict]) -> None:
    folder, summary = of_folder
    successes = [record["rows"]["model"]["success"] for record in read_records(folder)]
    assert successes == [False, True, True, False]
    missing = read_records(folder)[-1]["rows"]["model"]
    assert f"no picture {FIRST_EVALUATION_SEED + ITEMS - 1}.png" in missing["error"]
    assert summary["model"]["overall"]["failed"] == 1 and summary["model"]["overall"]["success"] == 0.5
    assert "failed" not in summary["copy"]["overall"]
    assert {"copy", "teleport", "spoiled"} <= set(summary) and "oracle" not in summary


def test_what_failed_is_tried_again_when_asked(targets: Path, tmp_path: Path) -> None:
    last = FIRST_EVALUATION_SEED + ITEMS - 1
    mine = tmp_path / "mine"
    mine.mkdir()
    for path in targets.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    editor, out = Folder(path=mine), tmp_path / "out"
    run_of(editor, out)
    Image.fromarray(sample_item(last).target).save(mine / f"{last}.png")
    assert run_of(editor, out)["model"]["overall"]["failed"] == 1
    summary = run_of(editor, out, retry_failed=True)
    assert "failed" not in summary["model"]["overall"] and summary["model"]["overall"]["success"] == 0.75
    assert len(read_records(out)) == ITEMS


def test_a_command_gets_the_words_and_writes_the_picture(tmp_path: Path) -> None:
    (tmp_path / "truth.py").write_text(TRUTH)
    line = f"{sys.executable} {tmp_path / 'truth.py'} {{seed}} {{output}} {{input}}"
    run = WorldRun(items=1, model={"command": line})
    summary = run_world(lambda: External(Command(line=line)), run, tmp_path / "out")
    assert summary["model"]["overall"]["success"] == 1
    assert read_records(tmp_path / "out")[0]["rows"]["model"]["time_s"] > 0


def test_workers_write_what_one_process_does(targets: Path, of_folder: tuple[Path, dict], tmp_path: Path) -> None:
    alone, summary = of_folder
    editor = External(Folder(path=targets))
    run = WorldRun(items=ITEMS, model=dict(editor.editor.identity), batch_size=1)
    told: list[tuple[int, int]] = []
    shared = run_world(Opening(editor), run, tmp_path, lambda *done: told.append(done), workers=2)
    assert told == [(k + 1, ITEMS) for k in range(ITEMS)]
    assert {**shared, "run": None} == {**summary, "run": None}
    assert [r["key"] for r in read_records(tmp_path)] == [r["key"] for r in read_records(alone)]
    assert len((tmp_path / "items.jsonl").read_text().splitlines()) == ITEMS
    with pytest.raises(ValueError, match="0 workers"):
        run_world(Opening(editor), run, tmp_path, workers=0)


class Opening:
    """A factory that can be pickled."""

    def __init__(self, editor: External) -> None:
        self.editor = editor

    def __call__(self) -> External:
        return self.editor


def test_one_process_at_a_time_writes_a_folder(targets: Path, tmp_path: Path) -> None:
    run = WorldRun(items=1)

    def also() -> External:
        with pytest.raises(OutputError, match="another process is at work"):
            run_world(also, run, tmp_path)
        return External(Folder(path=targets))

    assert run_world(also, run, tmp_path)["items"] == 1


def test_the_report_needs_nothing_beside_it(of_folder: tuple[Path, dict]) -> None:
    folder, summary = of_folder
    path = write_report(summary, read_records(folder), folder)
    page = Links(path)
    assert page.outside == [] and page.pictures == 3
    assert page.sections[:2] == ["Success by family", "Success by split"]
    assert "Successes of the model: 2 of 2" in page.sections and "Failures of the model: 1 of 2" in page.sections
    text = path.read_text(encoding="utf-8")
    for row in ("copy the input", "teleport to the mean end", "spoiled targets", "Items without a picture: 1"):
        assert row in text
    assert "url(" not in text and not re.search(r"https?://", text)


def test_two_runs_on_a_page(of_folder: tuple[Path, dict], tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for seed in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + ITEMS):
        Image.fromarray(sample_item(seed).input).save(copies / f"{seed}.png")
    run_of(Folder(path=copies), tmp_path / "b")
    write_comparison(of_folder[0], tmp_path / "b", tmp_path / "page.html")
    page = Links(tmp_path / "page.html")
    pairs = pairs_of(read_records(of_folder[0]), read_records(tmp_path / "b"), "model", "model")
    only_a = sum(pair["a"] and not pair["b"] for pair in pairs)
    assert only_a and page.outside == [] and page.pictures == only_a
    assert f"Only A succeeds: {only_a} of {only_a}" in page.sections and "By edit" in page.sections
    assert re.search(rf"only A</th><td>{only_a}</td>", (tmp_path / "page.html").read_text(encoding="utf-8"))


def test_an_error_map_is_black_where_pictures_agree() -> None:
    item = sample_item(FIRST_EVALUATION_SEED)
    assert not np.asarray(error_map(item.target, item.target)).any()
    black, white = (np.full((4, 4, 3), value, np.uint8) for value in (0, 255))
    assert (np.asarray(error_map(black, white)) == HEAT[-1]).all()
    edge = np.asarray(error_map(item.input, item.target)).any(axis=-1)
    assert edge[item.edit_mask].all()


def test_reasoning_frames_stand_over_the_true_ones(tmp_path: Path) -> None:
    item = sample_item(FIRST_EVALUATION_SEED, family="table", edit="push")
    frames = item.frames()
    shown = np.concatenate([frames[:25], frames[-1:]])
    assert np.array_equal(np.asarray(strip(shown)), np.asarray(true_strip(item, 26)))
    assert strip(shown).size == (6 * 128, 128) and strip(shown[-2:]).size == (2 * 128, 128)
    record = {"seed": item.seed, "family": "table", "drawing": {"family": "table", "edit": "push"}}
    record["rows"] = {"model": {"trajectory_frames": 26}}
    path = image_path(tmp_path, item.seed, "model")
    path.parent.mkdir()
    Image.fromarray(item.target).save(path)
    plain = item_card(record, tmp_path)
    strip(shown).save(path.with_name(f"{path.stem}-frames.png"))
    card = item_card(record, tmp_path)
    assert card.width == plain.width and card.height > plain.height + 2 * 80


def test_splits_are_drawn_and_summarised_apart(tmp_path: Path) -> None:
    run = WorldRun(items=4, split="all")
    assert run.identity()["world"] == "drawn"
    run_world(lambda: External(Folder(path=tmp_path)), run, tmp_path / "out")
    records = read_records(tmp_path / "out")
    for record in records:
        item = item_of(record)
        assert (item.prompt, item.split) == (record["prompt"], record["split"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    of_splits = summary["splits"]["teleport"]
    assert set(of_splits) == {record["split"] for record in records} and list(of_splits)[0] == "in distribution"
    assert sum(group["items"] for group in of_splits.values()) == 4
    page = Links(write_report(summary, records, tmp_path / "out"))
    assert "Success by split" in page.sections and page.pictures == 0
    one = replace(run, split="held-out-phrasing")
    assert one.item(FIRST_EVALUATION_SEED).split == "held-out phrasing"
    with pytest.raises(ValueError, match="all, in-distribution, held-out-combination"):
        WorldRun(split="unseen")
