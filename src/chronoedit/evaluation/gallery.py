"""A picture of what a run did well and badly: input, edit and truth of some items of each kind of edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from chronoedit.media import contact_sheet, load_image
from chronoedit.world import WORLD_SIZE, sample_item

from .run import image_path
from .summary import Record

SHOWN = 9


def choose_items(records: Sequence[Record], *, success: bool, row: str = "model", count: int = SHOWN) -> list[Record]:
    """Up to `count` items that succeeded, or failed: the first of each edit, then the second of each, and so on."""
    chosen = [record for record in records if record["rows"][row]["success"] is success]
    seen: dict[str, int] = {}
    turns = []
    for record in chosen:
        seen[record["edit"]] = turn = seen.get(record["edit"], 0) + 1
        turns.append((turn, record["edit"], record["seed"]))
    by_seed = {record["seed"]: record for record in chosen}
    return [by_seed[seed] for _, _, seed in sorted(turns)[:count]]


def item_row(record: Record, folder: Path, *, row: str = "model", size_px: int = WORLD_SIZE) -> list[Image.Image]:
    """Input, edit and truth of one item. Raises ImageError when the edited picture is missing."""
    item = sample_item(record["seed"], family=record["family"], size=size_px)
    edited = load_image(image_path(folder, record["seed"], row))
    return [Image.fromarray(item.input), edited, Image.fromarray(item.target)]


def run_gallery(
    records: Sequence[Record], folder: Path, *, row: str = "model", size_px: int = WORLD_SIZE
) -> Image.Image:
    """Successes, then failures, a row each: input, edit, truth. Raises ImageError when an edited picture is missing."""
    rows, labels = [], []
    for success in (True, False):
        for record in choose_items(records, success=success, row=row):
            rows.append(item_row(record, folder, row=row, size_px=size_px))
            failed = [name for name, held in record["rows"][row]["checks"].items() if not held]
            verdict = "success" if success else f"failed: {', '.join(failed)}"
            labels.append(f"{record['prompt']} [{record['seed']}] {verdict}")
    return contact_sheet(rows, labels=labels, columns=("input", "edit", "truth"))
