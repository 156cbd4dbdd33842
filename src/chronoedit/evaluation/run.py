"""A run of the exact benchmark: an editor on items of the world, beside copy, teleport, oracle and spoiled targets.

In the folder: `run.json` says what is measured, `items.jsonl` has one line an item, written when it is done, and
`images/` the edited pictures; `summary.json` comes last. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chronoedit.errors import OutputError
from chronoedit.ledger import Ledger, claim, locked
from chronoedit.media import atomic_path, save_image
from chronoedit.request import EditRequest, ImageEditor, parse_step_cache
from chronoedit.world import FIRST_EVALUATION_SEED, FRAMES, SCENES, WORLD_SIZE, Item, sample_item
from chronoedit.world.splits import FLAGS

from .attempts import Attempt, External, attempts, pixels_of
from .physics import score
from .spoil import SPOILINGS, spoiled
from .summary import MEASURES, Record, compare, summarise
from .teleport import teleported
from .workers import done_by

REASONING_ROWS: dict[str, dict[str, bool]] = {
    "off": {"model": False},
    "on": {"model": True},
    "both": {"model": True, "no_reasoning": False},
}
"""The editor's rows, each with whether it reasons, by the choice of `WorldRun.reasoning`."""

STRIP_FRAMES = 6  # of the reasoning frames, kept as a picture

WorldEditor = ImageEditor | External
Report = Callable[[int, int], None]
WORLD = "drawn"  # which scenes a seed means: a folder of others is another run
BASELINES = ("copy", "teleport")
"""The rows that need no editor; "oracle" stands beside them where there is an autoencoder."""


@dataclass(frozen=True, kw_only=True)
class WorldRun:
    """What is measured: `items` items from `first_seed` on, each edited with its own seed as the noise's.

    With a `family` all are of that one; else each seed draws its own. With a `split`, a name in FLAGS, they are of that
    one; else of each in turn. `scenes` are the hashes of the files that families beside the package's own come from, by
    family.
    `reasoning` is "off", "on" or "both"; with "both" the row "model" reasons and "no_reasoning" does not.
    `trajectory` scores the reasoning frames too. Steps and guidance of None are the model's own. `model` identifies
    the editor (name, hash), so that one folder never mixes two. Raises ValueError for what cannot be run.
    """

    items: int = 600
    first_seed: int = FIRST_EVALUATION_SEED
    size_px: int = WORLD_SIZE
    family: str | None = None
    split: str | None = None
    scenes: dict[str, str] = field(default_factory=dict)
    reasoning: str = "off"
    trajectory: bool = False
    num_inference_steps: int | None = None
    num_reasoning_steps: int | None = None
    guidance_scale: float | None = None
    guidance_until: float | None = None
    step_cache: str | None = None
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
        if self.split is not None and self.split not in FLAGS:
            raise ValueError(f"split {self.split!r} is unknown; choose from {', '.join(FLAGS)}")
        if self.reasoning not in REASONING_ROWS:
            raise ValueError(f"reasoning {self.reasoning!r} is unknown; choose from {', '.join(REASONING_ROWS)}")
        if self.reasoning == "off" and (self.trajectory or self.num_reasoning_steps is not None):
            raise ValueError("a trajectory, or a number of reasoning steps, needs reasoning; turn reasoning on")
        if self.step_cache is not None:
            parse_step_cache(self.step_cache)
        if self.num_reasoning_steps is not None and self.num_reasoning_steps < 1:
            raise ValueError(f"num_reasoning_steps {self.num_reasoning_steps} is below 1; or turn reasoning off")

    @property
    def rows(self) -> dict[str, bool]:
        return REASONING_ROWS[self.reasoning]

    def identity(self) -> dict[str, Any]:
        """What must agree between the runs that share a folder: all but how many items, and how many at once."""
        given = {name: value for name, value in asdict(self).items() if name not in ("items", "batch_size")}
        given["scenes"] = self.scenes or None  # which a folder without such scenes need not say
        return {**given, "world": WORLD, "baselines": list(BASELINES)}

    def drawing(self, seed: int) -> dict[str, Any]:
        """The arguments that `sample_item` draws an item with."""
        split = None if self.split is None else FLAGS[self.split]
        return {"family": self.family, "split": split, "size": self.size_px}

    def item(self, seed: int) -> Item:
        """The item of a seed."""
        return sample_item(seed, **self.drawing(seed))

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
            step_cache=self.step_cache,
            return_trajectory=reasoning and self.trajectory,
        )


def run_world(
    factory: Callable[[], WorldEditor],
    run: WorldRun,
    folder: Path,
    report: Report | None = None,
    *,
    workers: int = 1,
    retry_failed: bool = False,
) -> dict[str, Any]:
    """Do the items that `folder` lacks and write its summary, which is returned.

    `report(done, total)` is called after each batch. With several `workers`, `factory` is pickled and called in each;
    `retry_failed` does those again that the editor could not. Raises OutputError when the folder holds another run, is
    being written by another process or cannot be, ValueError from the editor's requests, and as `done_by` does.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers; give 1 or more")
    claim(folder / "run.json", run.identity(), "another run")
    with locked(folder / "run.json") as is_ours:
        if not is_ours:
            raise OutputError(f"another process is at work in {folder}; wait for it, or choose another --output")
        ledger = Ledger(folder / "items.jsonl")
        seeds = range(run.first_seed, run.first_seed + run.items)
        left = [seed for seed in seeds if is_left(ledger.get(str(seed)), retry_failed=retry_failed)]
        batches = [left[at : at + run.batch_size] for at in range(0, len(left), run.batch_size)]
        done = run.items - len(left)
        for records in done_by(workers, factory, partial(do_batch, run=run, folder=folder), batches):
            for record in records:
                ledger.append(str(record["seed"]), record)
            done += len(records)
            if report is not None:
                report(done, run.items)
        summary = {"run": asdict(run), **summarise(_records(ledger, seeds))}
        write_json(folder / "summary.json", summary)
    return summary


def is_left(record: Record | None, *, retry_failed: bool) -> bool:
    """Whether an item is to be done: it is not, or it failed and is to be tried again."""
    if record is None:
        return True
    return retry_failed and any(row.get("error") is not None for row in record["rows"].values())


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


def do_batch(editor: WorldEditor, seeds: Sequence[int], *, run: WorldRun, folder: Path) -> list[dict[str, Any]]:
    """Edit and score the items of these seeds; the pictures go into `folder`, the records are returned."""
    items = [run.item(seed) for seed in seeds]
    rows: list[dict[str, Any]] = [{} for _ in items]
    for row, reasoning in run.rows.items():
        if isinstance(editor, External):
            made = [editor.attempt(item) for item in items]
        else:
            made = attempts(editor, [run.request(item, reasoning=reasoning) for item in items])
        for item, of_item, attempt in zip(items, rows, made, strict=True):
            of_item[row] = _scored(item, attempt, image_path(folder, item.seed, row))
    return [_record(editor, run, item, of_item) for item, of_item in zip(items, rows, strict=True)]


def _scored(item: Item, attempt: Attempt, path: Path) -> dict[str, Any]:
    if attempt.image is None:
        nothing = dict.fromkeys(MEASURES)
        return {"success": False, "checks": {}, **nothing, **attempt.measured, "error": attempt.error}
    save_image(attempt.image, path)
    scored = {**score(item, pixels_of(attempt.image, item), attempt.trajectory).to_json(), **attempt.measured}
    if attempt.trajectory is None:
        return scored
    save_image(strip(attempt.trajectory), strip_path(path))
    return {**scored, "trajectory_frames": len(attempt.trajectory)}


def _record(editor: WorldEditor, run: WorldRun, item: Item, rows: dict[str, Any]) -> dict[str, Any]:
    baselines = {"copy": item.input, "teleport": teleported(item)}
    if not isinstance(editor, External):
        baselines["oracle"] = pixels_of(editor.reconstruct(Image.fromarray(item.target)), item)
    spoilt = {how: spoiled(item, how) for how in SPOILINGS}
    return {
        "seed": item.seed,
        "family": item.family,
        "edit": item.edit,
        "split": item.split,
        "prompt": item.prompt,
        "drawing": run.drawing(item.seed),
        "rows": {**rows, **{row: score(item, picture).to_json() for row, picture in baselines.items()}},
        "spoiled": {how: score(item, picture).success for how, picture in spoilt.items() if picture is not None},
    }


def strip_indices(count: int) -> list[int]:
    """Which of `count` reasoning frames are kept: evenly spaced, the first and the last among them."""
    return [round(index) for index in np.linspace(0, count - 1, min(STRIP_FRAMES, count))]


def strip(frames: np.ndarray) -> Image.Image:
    """Some of the frames, uint8 T H W 3, side by side."""
    return Image.fromarray(np.concatenate([frames[index] for index in strip_indices(len(frames))], axis=1))


def true_strip(item: Item, count: int) -> Image.Image:
    """The true frames beside those that `strip` keeps of `count`: the world's of the same index, the end last."""
    frames = [item.frame(FRAMES - 1 if index == count - 1 else index) for index in strip_indices(count)]
    return Image.fromarray(np.concatenate(frames, axis=1))


def strip_path(path: Path) -> Path:
    """Where the reasoning frames of an edited picture lie."""
    return path.with_name(f"{path.stem}-frames.png")
