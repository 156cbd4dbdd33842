"""A run of the exact benchmark: an editor on items of the world, beside copy, oracle and spoiled targets.

In the folder: `run.json` says what is measured, `items.jsonl` has one line an item, written when it is done, and
`images/` the edited pictures; `summary.json` comes last. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from chronoedit.errors import OutputError
from chronoedit.ledger import Ledger, claim
from chronoedit.media import atomic_path, save_image
from chronoedit.request import EditorFactory, EditRequest, EditResult, ImageEditor
from chronoedit.world import FIRST_EVALUATION_SEED, SCENES, WORLD_SIZE, Item, sample_item

from .physics import score
from .spoil import SPOILINGS, spoiled
from .summary import Record, compare, summarise

REASONING_ROWS: dict[str, dict[str, bool]] = {
    "off": {"model": False},
    "on": {"model": True},
    "both": {"model": True, "no_reasoning": False},
}
"""The editor's rows, each with whether it reasons, by the choice of `WorldRun.reasoning`."""

Report = Callable[[int, int], None]


@runtime_checkable
class BatchEditor(Protocol):
    """An editor that takes several requests at once."""

    def edit_batch(self, requests: Sequence[EditRequest]) -> list[EditResult]:
        """The results in the order of the requests."""


@dataclass(frozen=True, kw_only=True)
class WorldRun:
    """What is measured: `items` items from `first_seed` on, each edited with its own seed as the noise's.

    With a `family` all are of that one; else each seed draws its own, of those that the embedded model was trained on.
    `reasoning` is "off", "on" or "both"; with "both" the row "model" reasons and "no_reasoning" does not.
    `trajectory` scores the reasoning frames too. Steps and guidance of None are the model's own. `model` identifies
    the editor (name, hash), so that one folder never mixes two. Raises ValueError for what cannot be run.
    """

    items: int = 200
    first_seed: int = FIRST_EVALUATION_SEED
    size_px: int = WORLD_SIZE
    family: str | None = None
    reasoning: str = "off"
    trajectory: bool = False
    num_inference_steps: int | None = None
    num_reasoning_steps: int | None = None
    guidance_scale: float | None = None
    guidance_until: float | None = None
    batch_size: int = 8
    model: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.items < 1 or self.batch_size < 1:
            raise ValueError(f"items {self.items} and batch size {self.batch_size} must be 1 or more")
        if self.first_seed < FIRST_EVALUATION_SEED:
            raise ValueError(
                f"first seed {self.first_seed} is one that training may use; start at {FIRST_EVALUATION_SEED} or above"
            )
        if self.family is not None and self.family not in SCENES:
            raise ValueError(f"family {self.family!r} is unknown; choose from {', '.join(SCENES)}")
        if self.reasoning not in REASONING_ROWS:
            raise ValueError(f"reasoning {self.reasoning!r} is unknown; choose from {', '.join(REASONING_ROWS)}")
        if self.reasoning == "off" and (self.trajectory or self.num_reasoning_steps is not None):
            raise ValueError("a trajectory, or a number of reasoning steps, needs reasoning; turn reasoning on")
        if self.num_reasoning_steps is not None and self.num_reasoning_steps < 1:
            raise ValueError(f"num_reasoning_steps {self.num_reasoning_steps} is below 1; or turn reasoning off")

    @property
    def rows(self) -> dict[str, bool]:
        return REASONING_ROWS[self.reasoning]

    def identity(self) -> dict[str, Any]:
        """What must agree between the runs that share a folder: all but how many items, and how many at once."""
        return {name: value for name, value in asdict(self).items() if name not in ("items", "batch_size")}

    def request(self, item: Item, *, reasoning: bool) -> EditRequest:
        """What the editor is asked: the item's picture and words, and nothing else of it but its seed as noise."""
        return EditRequest(
            image=item.input,
            prompt=item.prompt,
            seed=item.seed,
            at_photo_size=True,
            reasoning=reasoning,
            num_inference_steps=self.num_inference_steps,
            num_reasoning_steps=self.num_reasoning_steps if reasoning else None,
            guidance_scale=self.guidance_scale,
            guidance_until=1.0 if self.guidance_until is None else self.guidance_until,
            return_trajectory=reasoning and self.trajectory,
        )


def run_world(factory: EditorFactory, run: WorldRun, folder: Path, report: Report | None = None) -> dict[str, Any]:
    """Do the items that `folder` lacks and write its summary, which is returned.

    `report(done, total)` is called after each batch. Raises OutputError when the folder holds another run or cannot
    be written, ValueError from the editor's requests.
    """
    claim(folder / "run.json", run.identity(), "another run")
    ledger = Ledger(folder / "items.jsonl")
    seeds = range(run.first_seed, run.first_seed + run.items)
    left = [seed for seed in seeds if str(seed) not in ledger]
    editor = factory() if left else None
    for at in range(0, len(left), run.batch_size):
        assert editor is not None
        items = [sample_item(seed, family=run.family, size=run.size_px) for seed in left[at : at + run.batch_size]]
        for item, record in zip(items, _do_batch(editor, run, items, folder), strict=True):
            ledger.append(str(item.seed), record)
        if report is not None:
            report(run.items - len(left) + at + len(items), run.items)
    summary = {"run": asdict(run), **summarise(_records(ledger, seeds))}
    write_json(folder / "summary.json", summary)
    return summary


def read_records(folder: Path) -> list[Record]:
    """The records of a finished or stopped run, by seed. Raises OutputError when there are none."""
    path = folder / "items.jsonl"
    if not path.is_file():
        raise OutputError(f"there is no {path}; give a folder that `chronoedit eval world` wrote")
    return sorted(Ledger(path).records(), key=lambda record: record["seed"])


def compare_runs(folder_a: Path, folder_b: Path) -> dict[str, Any]:
    """Success of the row "model" in one folder less that in another, item by item. Raises as `compare` does."""
    return compare(read_records(folder_a), read_records(folder_b), "model", "model")


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all. Raises OutputError."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def image_path(folder: Path, seed: int, row: str) -> Path:
    """Where the edited picture of an item lies."""
    return folder / "images" / f"{seed}-{row}.png"


def _records(ledger: Ledger, seeds: range) -> list[Record]:
    records = [ledger.get(str(seed)) for seed in seeds]
    return [record for record in records if record is not None]


def _do_batch(editor: ImageEditor, run: WorldRun, items: Sequence[Item], folder: Path) -> list[dict[str, Any]]:
    records = [_record_without_model(editor, item) for item in items]
    for row, reasoning in run.rows.items():
        results = _edit(editor, [run.request(item, reasoning=reasoning) for item in items])
        for item, record, result in zip(items, records, results, strict=True):
            save_image(result.image, image_path(folder, item.seed, row))
            scored = score(item, _pixels(result.image, item), result.trajectory)
            record["rows"][row] = {**scored.to_json(), "time_s": result.timings_s.get("total")}
    for record in records:
        record["rows"] = {row: record["rows"][row] for row in (*run.rows, "copy", "oracle")}
    return records


def _edit(editor: ImageEditor, requests: Sequence[EditRequest]) -> list[EditResult]:
    if isinstance(editor, BatchEditor):
        return editor.edit_batch(requests)
    return [editor.edit(request) for request in requests]


def _pixels(image: Image.Image, item: Item) -> np.ndarray:
    """uint8 size size 3, brought to the item's size where the model works at its own."""
    image = image.convert("RGB")
    size = (item.size, item.size)
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.LANCZOS))


def _record_without_model(editor: ImageEditor, item: Item) -> dict[str, Any]:
    oracle = _pixels(editor.reconstruct(Image.fromarray(item.target)), item)
    pictures = {how: spoiled(item, how) for how in SPOILINGS}
    return {
        "seed": item.seed,
        "family": item.family,
        "edit": item.edit,
        "prompt": item.prompt,
        "rows": {"copy": score(item, item.input).to_json(), "oracle": score(item, oracle).to_json()},
        "spoiled": {how: score(item, picture).success for how, picture in pictures.items() if picture is not None},
    }
