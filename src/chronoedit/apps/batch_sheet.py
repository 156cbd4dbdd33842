"""The contact sheet of a batch: each picture beside what was made of it, a row a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from chronoedit.media import contact_sheet, encode_image, load_image, write_files

SIDE_PX = 256
EDITS_A_ROW = 6
ROWS_A_PAGE = 40

Record = dict[str, Any]


def write_sheet(folder: Path, records: Sequence[Record]) -> list[Path]:
    """Write `sheet.png`, and `sheet.2.png`, ... where there are many rows, of the items that are done; gives the paths.

    No result is called so, since all their names have a - in them. Raises OutputError, ImageError for a picture that
    has gone.
    """
    rows = _rows(records)
    paths = []
    for number, at in enumerate(range(0, len(rows), ROWS_A_PAGE), start=1):
        page = rows[at : at + ROWS_A_PAGE]
        path = folder / ("sheet.png" if number == 1 else f"sheet.{number}.png")
        pictures = [
            [_small(Path(row[0]["image"])), *(_small(folder / item["files"][0]) for item in row)] for row in page
        ]
        write_files({path: encode_image(contact_sheet(pictures, labels=[_label(row) for row in page]), path)})
        paths.append(path)
    return paths


def _rows(records: Sequence[Record]) -> list[list[Record]]:
    """The items that are done, those of one picture and prompt together."""
    together: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record["files"]:
            together.setdefault((record["image"], record["prompt"]), []).append(record)
    return [items[at : at + EDITS_A_ROW] for items in together.values() for at in range(0, len(items), EDITS_A_ROW)]


def _label(row: Sequence[Record]) -> str:
    seeds = " ".join(str(record["seed"]) for record in row)
    return f"{row[0]['prompt']} [{Path(row[0]['image']).name}, seed {seeds}]"


def _small(path: Path) -> Image.Image:
    image = load_image(path)
    image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    return image
