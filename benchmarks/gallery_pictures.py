"""The pictures of the gallery: the strip of one edit, a chain of edits, and a banner with a row for each family."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MOMENTS = (0.2, 0.4, 0.6, 0.8)
GAP_PX, MARGIN_PX = 8, 12
STRIP_PX, MOMENT_PX, TRUTH_PX = 256, 160, 128  # of pictures that are 128 px
CHAIN_PX, BANNER_PX = 256, 160
TITLE_PX, WORDS_PX, LINE_PX = 19, 19, 28
LINE_CHARACTERS = 26  # of WORDS_PX that stand under a picture of CHAIN_PX
Colour = tuple[int, int, int]
INK: Colour = (31, 35, 40)
FAINT: Colour = (110, 119, 129)
PAPER: Colour = (255, 255, 255)
QUALITY = 88
ON_THE_WAY = "imagined on the way"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A picture, the side that it is shown at, and its title."""

    image: Image.Image
    side_px: int
    title: str = ""


def edit_cells(before: Image.Image, trajectory: np.ndarray, after: Image.Image, sides: tuple[int, int]) -> list[Cell]:
    """Before, four moments of the trajectory (uint8 T H W 3), after; the sides are of the ends and of the moments."""
    end_px, moment_px = sides
    last = len(trajectory) - 1
    on_the_way = [Image.fromarray(trajectory[round(moment * last)]) for moment in MOMENTS]
    titles = [ON_THE_WAY, *[""] * (len(MOMENTS) - 1)]
    return [
        Cell(image=before, side_px=end_px, title="input"),
        *(Cell(image=each, side_px=moment_px, title=t) for each, t in zip(on_the_way, titles, strict=True)),
        Cell(image=after, side_px=end_px, title="edit"),
    ]


def strip(
    before: Image.Image, trajectory: np.ndarray, after: Image.Image, truth: Image.Image | None = None
) -> Image.Image:
    """One edit from left to right, and the simulator's truth, smaller."""
    cells = edit_cells(before, trajectory, after, (STRIP_PX, MOMENT_PX))
    if truth is not None:
        cells.append(Cell(image=truth, side_px=TRUTH_PX, title="truth"))
    return _framed(_stacked([_row(cells), _titles(cells)]))


def chain(pictures: Sequence[Image.Image], words: Sequence[str]) -> Image.Image:
    """The first picture, and what each instruction made of the one before it, with the words below."""
    row = _row([Cell(image=each, side_px=CHAIN_PX) for each in pictures])
    columns = [textwrap.wrap(text, LINE_CHARACTERS) for text in ("before", *words)]
    lines = [
        _line(row.width, [(k * (CHAIN_PX + GAP_PX), text) for k, text in enumerate(texts)], INK, WORDS_PX)
        for texts in zip_longest(*columns, fillvalue="")
    ]
    return _framed(_stacked([row, *lines]))


def banner(rows: Sequence[tuple[str, Sequence[Cell]]]) -> Image.Image:
    """Rows one under the other, each below its words; above all the titles of the columns, from the first row."""
    lines = [_titles(rows[0][1])]
    for words, cells in rows:
        row = _row(cells)
        lines += [_line(row.width, [(0, words)], INK, WORDS_PX), row, _paper(row.width, GAP_PX)]
    return _framed(_stacked(lines[:-1]))


def encode(picture: Image.Image) -> bytes:
    """As WebP, a little stronger than `chronoedit.media` makes it: a gallery is many pictures."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=6)
    return buffer.getvalue()


def _row(cells: Sequence[Cell]) -> Image.Image:
    """Cells side by side, standing on one line."""
    height = max(cell.side_px for cell in cells)
    sheet, x = _paper(sum(cell.side_px + GAP_PX for cell in cells) - GAP_PX, height), 0
    for cell in cells:
        picture = cell.image.convert("RGB").resize((cell.side_px, cell.side_px), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x, height - cell.side_px))
        x += cell.side_px + GAP_PX
    return sheet


def _titles(cells: Sequence[Cell]) -> Image.Image:
    """The titles of a row of cells, as a line of the row's width."""
    starts = [0, *accumulate(cell.side_px + GAP_PX for cell in cells)]
    texts = [(x, cell.title) for x, cell in zip(starts, cells, strict=False)]
    return _line(starts[-1] - GAP_PX, texts, FAINT, TITLE_PX)


def _line(width: int, texts: Sequence[tuple[int, str]], colour: Colour, font_px: int) -> Image.Image:
    sheet = _paper(width, LINE_PX)
    for x, text in texts:
        ImageDraw.Draw(sheet).text((x, 1), text, colour, ImageFont.load_default(size=font_px))
    return sheet


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    sheet, y = _paper(max(each.width for each in pictures), sum(each.height for each in pictures)), 0
    for picture in pictures:
        sheet.paste(picture, (0, y))
        y += picture.height
    return sheet


def _framed(picture: Image.Image) -> Image.Image:
    sheet = _paper(picture.width + 2 * MARGIN_PX, picture.height + 2 * MARGIN_PX)
    sheet.paste(picture, (MARGIN_PX, MARGIN_PX))
    return sheet


def _paper(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), PAPER)
