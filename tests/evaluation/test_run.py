"""Runs of the benchmark with editors whose results are known, stopped and resumed, compared and shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.errors import OutputError
from chronoedit.evaluation.gallery import choose_items, run_gallery
from chronoedit.evaluation.run import WorldRun, compare_runs, image_path, read_records, run_world
from chronoedit.evaluation.summary import compare, summarise
from chronoedit.request import EditRequest, EditResult
from chronoedit.world import FIRST_EVALUATION_SEED, Item, sample_item

ITEMS = 6


def shown_trajectory(item: Item) -> np.ndarray:
    frames = item.frames()
    return np.concatenate([frames[:25], frames[-1:]])


@dataclass
class Knowing:
    """An editor for tests that draws the truth where its request reasons, and copies the input where it does not."""

    asked: list[EditRequest] = field(default_factory=list)
    stops_after: int | None = None
    family: str | None = None

    def __call__(self) -> Knowing:
        return self

    def edit(self, request: EditRequest) -> EditResult:
        if self.stops_after is not None and len(self.asked) >= self.stops_after:
            raise KeyboardInterrupt
        self.asked.append(request)
        assert request.seed is not None
        item = sample_item(request.seed, family=self.family)
        pixels = item.target if request.reasoning else item.input
        image = Image.fromarray(pixels)
        return EditResult(
            image=image,
            images=[image],
            video=np.stack([item.input] * 4 + [pixels]),
            trajectory=shown_trajectory(item) if request.return_trajectory else None,
            latents=None,
            request=request,
            timings_s={"total": 0.5},
            hashes={"model": "none"},
        )

    def reconstruct(self, image: Image.Image) -> Image.Image:
        return image.resize((256, 256), Image.Resampling.BICUBIC)


@dataclass
class Batching(Knowing):
    """The same, several at once."""

    batches: list[int] = field(default_factory=list)

    def edit_batch(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        self.batches.append(len(requests))
        return [self.edit(request) for request in requests]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, Batching]:
    folder, editor = tmp_path_factory.mktemp("run"), Batching()
    run = WorldRun(items=ITEMS, reasoning="both", batch_size=4)
    return folder, run_world(editor, run, folder), editor


def test_rows_stand_side_by_side(both: tuple[Path, dict, Batching]) -> None:
    folder, summary, _ = both
    assert summary == json.loads((folder / "summary.json").read_text())
    still = [sample_item(FIRST_EVALUATION_SEED + k).subject is None for k in range(ITEMS)]
    assert summary["model"]["overall"]["success"] == 1
    assert summary["copy"]["overall"]["success"] == pytest.approx(sum(still) / ITEMS)
    assert summary["no_reasoning"]["overall"]["success"] == summary["copy"]["overall"]["success"]
    assert summary["oracle"]["overall"]["success"] == 1
    assert summary["spoiled"]["overall"]["success"] == 0 and summary["spoiled"]["moved"]["items"] > 0
    items = [sample_item(FIRST_EVALUATION_SEED + k) for k in range(ITEMS)]
    assert set(summary["model"]) == {"overall", *(item.family for item in items)}
    for key, names in (("edits", {item.edit for item in items}), ("splits", {item.split for item in items})):
        assert summary[key]["model"].keys() == names
        assert all(group["success"] == 1 for group in summary[key]["model"].values())
    assert summary["model"]["overall"]["interval"] == [1, 1]
    assert summary["paired"]["overall"]["difference"] == pytest.approx(1 - sum(still) / ITEMS)
    assert summary["paired"]["moving"]["items"] <= ITEMS


def test_reasoning_frames_are_scored_when_asked_for(tmp_path: Path) -> None:
    summary = run_world(Knowing(), WorldRun(items=1, reasoning="on", trajectory=True), tmp_path)
    assert summary["model"]["overall"]["means"]["trajectory_error"]["mean"] < 0.2
    assert summary["model"]["overall"]["means"]["trajectory_seen"]["mean"] > 0.9


def test_the_editor_sees_the_picture_and_the_words_alone(both: tuple[Path, dict, Batching]) -> None:
    _, _, editor = both
    assert editor.batches == [4, 4, 2, 2]
    for request in editor.asked:
        assert request.seed is not None and isinstance(request.image, np.ndarray)
        item = sample_item(request.seed)
        assert np.array_equal(request.image, item.input) and request.prompt == item.prompt


def test_one_line_an_item_and_a_picture_each(both: tuple[Path, dict, Batching]) -> None:
    folder, _, _ = both
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == list(range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + ITEMS))
    assert set(lines[0]["rows"]) == {"model", "no_reasoning", "copy", "teleport", "oracle"}
    edited = np.asarray(Image.open(image_path(folder, FIRST_EVALUATION_SEED, "model")))
    assert np.array_equal(edited, sample_item(FIRST_EVALUATION_SEED).target)


def test_a_stopped_run_goes_on_without_losing_or_doubling(tmp_path: Path) -> None:
    run = WorldRun(items=5, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        run_world(Knowing(stops_after=3), run, tmp_path)
    assert len(read_records(tmp_path)) == 2 and not (tmp_path / "summary.json").exists()
    with (tmp_path / "items.jsonl").open("a") as file:
        file.write('{"key": "100002", "se')  # killed while writing
    editor, told = Knowing(), []
    summary = run_world(editor, run, tmp_path, lambda done, total: told.append((done, total)))
    assert [request.seed for request in editor.asked] == [100002, 100003, 100004]
    assert [record["seed"] for record in read_records(tmp_path)] == list(range(100000, 100005))
    assert told == [(4, 5), (5, 5)] and summary["items"] == 5
    again = Knowing()
    assert run_world(again, run, tmp_path) == summary and again.asked == []
    more = run_world(again, replace(run, items=6), tmp_path)
    assert more["items"] == 6 and len(again.asked) == 1


def test_a_folder_keeps_to_one_run(tmp_path: Path) -> None:
    run_world(Knowing(), WorldRun(items=1, model={"name": "a"}), tmp_path)
    with pytest.raises(OutputError, match="holds another run: model differ"):
        run_world(Knowing(), WorldRun(items=1, model={"name": "b"}), tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        run_world(Knowing(), WorldRun(items=1, model={"name": "a"}), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items": 0}, "must be 1 or more"),
        ({"first_seed": 99_999}, "start at 100000"),
        ({"reasoning": "maybe"}, "off, on, both"),
        ({"family": "garden"}, "table, falling, any, star"),
        ({"trajectory": True}, "turn reasoning on"),
        ({"num_reasoning_steps": 2}, "turn reasoning on"),
        ({"num_reasoning_steps": 0, "reasoning": "on"}, "below 1"),
    ],
)
def test_a_run_that_cannot_be_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorldRun(**arguments)


def test_two_runs_are_compared_item_by_item(both: tuple[Path, dict, Batching], tmp_path: Path) -> None:
    folder, summary, _ = both
    run_world(Knowing(), WorldRun(items=ITEMS), tmp_path)
    assert compare_runs(folder, tmp_path)["overall"] == summary["paired"]["overall"]
    assert compare_runs(tmp_path, folder)["overall"]["difference"] == -summary["paired"]["overall"]["difference"]
    with pytest.raises(ValueError, match=r"6 and 5, 5 in common"):
        compare(read_records(folder), read_records(tmp_path)[:-1], "model", "model")
    other_family = [{**record, "family": "star"} for record in read_records(folder)]
    with pytest.raises(ValueError, match=r"6 and 6, 0 in common.*--family"):
        compare(read_records(folder), other_family, "model", "model")
    with pytest.raises(OutputError, match="give a folder"):
        compare_runs(folder, tmp_path / "nowhere")


def test_a_run_of_one_family(tmp_path: Path) -> None:
    stars = Knowing(family="star")
    run_world(stars, WorldRun(items=2, family="star", reasoning="on"), tmp_path)
    assert {record["family"] for record in read_records(tmp_path)} == {"star"}
    assert summarise(read_records(tmp_path))["model"]["overall"]["success"] == 1
    assert run_gallery(read_records(tmp_path), tmp_path).height > 2 * 128
    with pytest.raises(OutputError, match="holds another run: family differ"):
        run_world(stars, WorldRun(items=2, reasoning="on"), tmp_path)


def test_nothing_done_is_no_summary() -> None:
    with pytest.raises(ValueError, match="no item is done"):
        summarise([])


def test_the_gallery_shows_each_edit_before_a_second_of_one(both: tuple[Path, dict, Batching]) -> None:
    folder, _, _ = both
    records = read_records(folder)
    edits = {record["edit"] for record in records}
    chosen = choose_items(records, success=True, count=len(edits))
    assert {record["edit"] for record in chosen} == edits
    assert choose_items(records, success=False) == []
    failures = choose_items(records, success=False, row="no_reasoning")
    assert failures and all(not record["rows"]["no_reasoning"]["success"] for record in failures)
    sheet = run_gallery(records, folder)
    assert sheet.width > 3 * 128 and sheet.height > ITEMS * 128
