"""The small world as a training set on disk, in the published layout: videos, and `metadata.csv` that lists them.

A pair is a video of two frames (before, after); a clip has 29 (the whole trajectory).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from chronoedit.ledger import Ledger, claim
from chronoedit.media import atomic_path, save_video
from chronoedit.world import FIRST_EVALUATION_SEED, SCENES, WORLD_SIZE, Item, sample_item

COLUMNS = ("key", "video", "prompt", "long_prompt", "split")
Report = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is exported: `count` items from `first_seed` on, of which `clip_share` (0 to 1) as clips, evenly spread.

    `scenes` are the hashes of the files that families beside the package's own come from, by family. Raises ValueError
    for what cannot be exported, and for seeds that are kept for evaluation.
    """

    count: int
    first_seed: int = 0
    clip_share: float = 0.5
    family: str | None = None
    size_px: int = WORLD_SIZE
    scenes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 1 or self.first_seed < 0:
            raise ValueError(
                f"count {self.count} from seed {self.first_seed}: give a count of 1 or more, a seed of 0 or more"
            )
        if self.first_seed + self.count > FIRST_EVALUATION_SEED:
            raise ValueError(
                f"seeds {self.first_seed} to {self.first_seed + self.count - 1} reach into those kept for evaluation; "
                f"stay below {FIRST_EVALUATION_SEED}"
            )
        if not 0 <= self.clip_share <= 1:
            raise ValueError(f"clip share {self.clip_share} is not between 0 (pairs alone) and 1 (clips alone)")
        if self.family is not None and self.family not in SCENES:
            raise ValueError(f"unknown family {self.family!r}; choose one of {', '.join(SCENES)}")

    def is_clip(self, index: int) -> bool:
        """Whether item `index` (from 0) is exported as a clip."""
        return math.floor((index + 1) * self.clip_share + 1e-9) > math.floor(index * self.clip_share + 1e-9)


def export_world(export: Export, folder: Path, report: Report | None = None) -> Path:
    """Write the videos that `folder` lacks, then `metadata.csv`, whose path is returned.

    An export that was stopped goes on where it was, and a larger `count` adds to a finished one; `export.jsonl` keeps
    the account. `report(done, total)` is called after each item. Raises OutputError when a file cannot be written, or
    the folder holds an export of other items.
    """
    _claim(folder, export)
    ledger = Ledger(folder / "export.jsonl")
    for index in range(export.count):
        key = f"world_{export.first_seed + index:06d}"
        video = Path("videos") / f"{key}.mp4"
        if key not in ledger or not (folder / video).is_file():
            item = sample_item(export.first_seed + index, family=export.family, size=export.size_px)
            save_video(_frames(item, clip=export.is_clip(index)), folder / video)
            words = {"prompt": item.prompt, "long_prompt": item.long_prompt, "split": item.split}
            ledger.append(key, {"video": video.as_posix(), **words})
        if report is not None:
            report(index + 1, export.count)
    path = folder / "metadata.csv"
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        records = sorted(ledger.records(), key=lambda record: record["key"])
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    return path


def _frames(item: Item, *, clip: bool) -> np.ndarray:
    return item.frames() if clip else np.stack([item.input, item.target])


def _claim(folder: Path, export: Export) -> None:
    mine = {name: value for name, value in asdict(export).items() if name != "count"}
    mine["scenes"] = export.scenes or None  # which a folder without such scenes need not say
    mine["world"] = "drawn"  # which scenes a seed means: a folder of others is another export
    claim(folder / "export.json", mine, "another export")
