"""Pictures of what a run did well and badly: input, edit and truth of some items of each kind of edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from chronoedit.media import contact_sheet, load_image
from chronoedit.world import WORLD_SIZE, Item, sample_item

from .attempts import pixels_of
from .colour import delta_e, srgb_to_lab
from .run import image_path, strip_path, true_strip
from .summary import Record

SHOWN = 9
GAP_PX = 4
HOT_DE = 40.0
HEAT = ((0, 0, 0), (70, 10, 110), (200, 50, 70), (250, 150, 30), (255, 250, 200))
"""Colours of the error map from ΔE 0 to 40, at equal distances."""


def choose_items(records: Sequence[Record], *, success: bool, row: str = "model", count: int = SHOWN) -> list[Record]:
    """Up to `count` items with a picture that succeeded, or failed, each edit in turn as `in_turns` takes them."""
    has_picture = [record for record in records if record["rows"][row].get("error") is None]
    chosen = [record for record in has_picture if record["rows"][row]["success"] is success]
    return in_turns(chosen, count)


def in_turns(records: Sequence[Record], count: int = SHOWN) -> list[Record]:
    """Up to `count` of these: the first of each edit, then the second of each, and so on."""
    seen: dict[str, int] = {}
    turns = []
    for record in records:
        seen[record["edit"]] = turn = seen.get(record["edit"], 0) + 1
        turns.append((turn, record["edit"], record["seed"]))
    by_seed = {record["seed"]: record for record in records}
    return [by_seed[seed] for _, _, seed in sorted(turns)[:count]]


def item_of(record: Record, size_px: int = WORLD_SIZE) -> Item:
    """The item that a record is of; `size_px` where the record does not know how it was drawn."""
    drawing = record["drawing"] if "drawing" in record else {"family": record["family"], "size": size_px}
    return sample_item(record["seed"], **drawing)


def item_row(record: Record, folder: Path, *, row: str = "model", size_px: int = WORLD_SIZE) -> list[Image.Image]:
    """Input, edit and truth of one item. Raises ImageError when the edited picture is missing."""
    item = item_of(record, size_px)
    edited = load_image(image_path(folder, record["seed"], row))
    return [Image.fromarray(item.input), edited, Image.fromarray(item.target)]


def verdict(record: Record, row: str = "model") -> str:
    """Whether an item succeeded, and what did not hold."""
    score = record["rows"][row]
    if score.get("error") is not None:
        return f"no picture: {score['error']}"
    failed = [name for name, held in score["checks"].items() if not held]
    return "success" if score["success"] else f"failed: {', '.join(failed)}"


def run_gallery(
    records: Sequence[Record], folder: Path, *, row: str = "model", size_px: int = WORLD_SIZE
) -> Image.Image:
    """Successes, then failures, a row each: input, edit, truth.

    Raises ImageError when an edited picture is missing, ValueError when no item has one.
    """
    rows, labels = [], []
    for success in (True, False):
        for record in choose_items(records, success=success, row=row):
            rows.append(item_row(record, folder, row=row, size_px=size_px))
            labels.append(f"{record['prompt']} [{record['seed']}] {verdict(record, row)}")
    return contact_sheet(rows, labels=labels, columns=("input", "edit", "truth"))


def item_card(record: Record, folder: Path, row: str = "model") -> Image.Image:
    """Input, edit, truth and error map side by side; below, where there are any, reasoning frames over the true ones.

    Raises ImageError when the edited picture is missing.
    """
    item = item_of(record)
    path = image_path(folder, record["seed"], row)
    edited = pixels_of(load_image(path), item)
    tiles = [Image.fromarray(pixels) for pixels in (item.input, edited, item.target)]
    lines = [beside([*tiles, error_map(edited, item.target)])]
    if strip_path(path).is_file():
        shown = load_image(strip_path(path))
        trajectory_frames = record["rows"][row]["trajectory_frames"]
        for frames in (shown, true_strip(item, trajectory_frames)):
            height = round(frames.height * lines[0].width / frames.width)
            lines.append(frames.convert("RGBA").resize((lines[0].width, height), Image.Resampling.LANCZOS))
    return below(lines)


def error_map(edited: np.ndarray, target: np.ndarray) -> Image.Image:
    """ΔE at each pixel of two pictures, uint8 H W 3, as heat: black where they agree, pale yellow from ΔE 40 up."""
    off = np.clip(delta_e(srgb_to_lab(edited), srgb_to_lab(target)) / HOT_DE, 0, 1)
    at = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(off, at, [colour[k] for colour in HEAT]) for k in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side, nothing between them."""
    width = sum(picture.width for picture in pictures) + GAP_PX * (len(pictures) - 1)
    sheet = Image.new("RGBA", (width, max(picture.height for picture in pictures)))
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width + GAP_PX
    return sheet


def below(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures one under the other, nothing between them."""
    height = sum(picture.height for picture in pictures) + GAP_PX * (len(pictures) - 1)
    sheet = Image.new("RGBA", (max(picture.width for picture in pictures), height))
    y = 0
    for picture in pictures:
        sheet.paste(picture, (0, y))
        y += picture.height + GAP_PX
    return sheet
