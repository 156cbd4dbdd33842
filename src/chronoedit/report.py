"""One HTML page that needs nothing beside it: text, tables, curves and pictures; in light and dark, on a phone too.

Everything is built as a tree and written by the standard library, so whatever stands in a text is escaped.
"""

from __future__ import annotations

import base64
import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image

from chronoedit.errors import ImageError
from chronoedit.media import write_files

Points = Sequence[tuple[float, float]]

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 230, 54, 8, 8, 36  # of a plot, in its own units
NUM_COLOURS = 8
MAX_TICKS = 6

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #dfe1e5; --paper: #fff; --card: #f7f8f9;
  --s0: #0b68c4; --s1: #c2410c; --s2: #15803d; --s3: #9333a8; --s4: #a16207; --s5: #0e7490; --s6: #be185d;
  --s7: #4b5563 }
@media (prefers-color-scheme: dark) { :root { --ink: #eceef0; --soft: #a0a6ad; --line: #3a3f45; --paper: #14171a;
  --card: #1c2024; --s0: #6cb2f7; --s1: #fb923c; --s2: #5fcf85; --s3: #d69ae8; --s4: #e3bd4e; --s5: #59c8de;
  --s6: #f58ab8; --s7: #b3bac3 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1080px; padding: 20px 16px 48px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 8px }
h2 { font-size: 18px; margin: 32px 0 10px }
p { margin: 0 0 10px; max-width: 75ch }
figure { margin: 0; padding: 12px; background: var(--card); border: 1px solid var(--line); border-radius: 8px }
figcaption { font-size: 13px; color: var(--soft) }
figure > strong { display: block; margin-bottom: 6px }
.grid { display: grid; gap: 14px; margin: 0 0 14px }
.wide { overflow-x: auto; margin: 0 0 14px }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
td:first-child { min-width: 5em }
th { font-weight: 600; color: var(--soft); overflow-wrap: normal }
td.number { text-align: right }
img { display: block; max-width: 100%; height: auto; margin: 0 auto 6px; border-radius: 4px }
svg { display: block; width: 100%; height: auto }
svg text { fill: var(--soft); font-size: 12px }
svg .axis { stroke: var(--line); stroke-width: 1 }
svg path { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round }
.legend span { display: inline-block; margin-right: 14px }
.legend i { display: inline-block; width: 14px; height: 3px; margin-right: 6px; vertical-align: middle }
""" + "\n".join(
    f"svg .s{k} {{ stroke: var(--s{k}) }} circle.s{k} {{ fill: var(--s{k}) }} i.s{k} {{ background: var(--s{k}) }}"
    for k in range(NUM_COLOURS)
)


class Page:
    """A page that is filled from top to bottom, each method adding one element.

    >>> page = Page("Run 7")
    >>> page.facts({"model": "tiny", "steps": 300})
    >>> page.plots([Plot("Loss", {"train": [(1, 0.9), (300, 0.4)]}, log_y=True)])
    >>> page.write("report.html")
    """

    def __init__(self, title: str, language: str = "en") -> None:
        self._root = ET.Element("html", lang=language)
        head = ET.SubElement(self._root, "head")
        ET.SubElement(head, "meta", charset="utf-8")
        ET.SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
        ET.SubElement(head, "title").text = title
        ET.SubElement(head, "style").text = STYLE
        self._body = ET.SubElement(self._root, "body")
        ET.SubElement(self._body, "h1").text = title

    def heading(self, text: str) -> None:
        """Begin a section."""
        ET.SubElement(self._body, "h2").text = text

    def text(self, text: str) -> None:
        """A paragraph."""
        ET.SubElement(self._body, "p").text = text

    def facts(self, rows: Mapping[str, object]) -> None:
        """A table of names and values."""
        table = self._table()
        for name, value in rows.items():
            row = ET.SubElement(table, "tr")
            ET.SubElement(row, "th", scope="row").text = name
            ET.SubElement(row, "td").text = shown(value)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table with a title over each column. Raises ValueError for a row of another length."""
        table = self._table()
        head = ET.SubElement(table, "tr")
        for column in columns:
            ET.SubElement(head, "th", scope="col").text = column
        for values in rows:
            if len(values) != len(columns):
                raise ValueError(f"a row of {len(values)} values for {len(columns)} columns; give one a column")
            row = ET.SubElement(table, "tr")
            for value in values:
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                ET.SubElement(row, "td", {"class": "number"} if number else {}).text = shown(value)

    def plots(self, plots: Sequence[Plot]) -> None:
        """Curves, side by side where there is room. Plots without a point that can be drawn are left out."""
        grid = self._grid(340)
        for plot in plots:
            if plot.drawn():
                grid.append(plot.figure())

    def pictures(self, pictures: Sequence[tuple[Image.Image | str | Path, str]], min_width_px: int = 260) -> None:
        """Pictures with captions, side by side where each gets `min_width_px`.

        A file goes in as it is, a picture in memory as PNG. Raises ImageError for a file that is missing or of another
        kind than PNG, JPEG and WebP.
        """
        grid = self._grid(min_width_px)
        for picture, caption in pictures:
            figure = ET.SubElement(grid, "figure")
            ET.SubElement(figure, "img", src=data_uri(picture), alt=caption)
            ET.SubElement(figure, "figcaption").text = caption

    def html(self) -> str:
        """The page."""
        return f"<!DOCTYPE html>\n{ET.tostring(self._root, encoding='unicode', method='html')}\n"

    def write(self, path: str | Path) -> None:
        """Write the page, whole or not at all. Raises OutputError."""
        write_files({Path(path): self.html().encode("utf-8", "replace")})

    def _table(self) -> ET.Element:
        return ET.SubElement(ET.SubElement(self._body, "div", {"class": "wide"}), "table")

    def _grid(self, min_width_px: int) -> ET.Element:
        columns = f"grid-template-columns: repeat(auto-fit, minmax(min(100%, {min_width_px}px), 1fr))"
        return ET.SubElement(self._body, "div", {"class": "grid", "style": columns})


class Plot:
    """Named curves over one axis: `series` are points (x, y) by name, in the order in which they are joined.

    A point that is not finite, or not positive where `log_y`, leaves a gap. Raises ValueError for more than 8 series.
    """

    def __init__(
        self, title: str, series: Mapping[str, Points], *, x: str = "step", log_y: bool = False, caption: str = ""
    ) -> None:
        if len(series) > NUM_COLOURS:
            raise ValueError(f"{len(series)} curves in one plot; at most {NUM_COLOURS} can be told apart")
        self.title, self.series, self.x, self.log_y, self.caption = title, series, x, log_y, caption

    def drawn(self) -> list[tuple[float, float]]:
        """The points that can be drawn, of all series."""
        return [point for points in self.series.values() for point in points if self._is_drawn(point)]

    def figure(self) -> ET.Element:
        """The plot as an element of a page. Raises ValueError when no point can be drawn."""
        points = self.drawn()
        if not points:
            raise ValueError(f"plot {self.title!r} has no point that can be drawn")
        across = Axis([x for x, _ in points])
        up = Axis([y for _, y in points], log=self.log_y)
        figure = ET.Element("figure")
        ET.SubElement(figure, "strong").text = self.title
        view = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": self.title}
        svg = ET.SubElement(figure, "svg", view)
        self._axes(svg, across, up)
        legend = ET.SubElement(figure, "figcaption", {"class": "legend"})
        for index, (name, series) in enumerate(self.series.items()):
            self._curve(svg, series, across, up, f"s{index}")
            self._entry(legend, name, series, f"s{index}")
        if self.caption:
            ET.SubElement(figure, "figcaption").text = self.caption
        return figure

    def _is_drawn(self, point: tuple[float, float]) -> bool:
        return math.isfinite(point[0]) and math.isfinite(point[1]) and (not self.log_y or point[1] > 0)

    def _axes(self, svg: ET.Element, across: Axis, up: Axis) -> None:
        bottom = HEIGHT - BOTTOM
        for tick in up.ticks:
            y = _y(up.share(tick))
            ET.SubElement(svg, "line", {"class": "axis", "x1": str(LEFT), "x2": str(WIDTH - RIGHT), "y1": y, "y2": y})
            label = {"x": str(LEFT - 6), "y": y, "text-anchor": "end", "dominant-baseline": "middle"}
            ET.SubElement(svg, "text", label).text = f"{tick:g}"
        for tick in across.ticks:
            x, share = _x(across.share(tick)), across.share(tick)
            ET.SubElement(svg, "line", {"class": "axis", "x1": x, "x2": x, "y1": str(bottom), "y2": str(bottom + 4)})
            anchor = "end" if share > 0.95 else "middle"
            ET.SubElement(svg, "text", {"x": x, "y": str(bottom + 16), "text-anchor": anchor}).text = f"{tick:g}"
        middle = {"x": str((LEFT + WIDTH - RIGHT) / 2), "y": str(HEIGHT - 4), "text-anchor": "middle"}
        ET.SubElement(svg, "text", middle).text = self.x

    def _curve(self, svg: ET.Element, series: Points, across: Axis, up: Axis, colour: str) -> None:
        for drawn, run in groupby(series, self._is_drawn):
            if not drawn:
                continue
            places = [(_x(across.share(x)), _y(up.share(y))) for x, y in run]
            if len(places) == 1:
                ET.SubElement(svg, "circle", {"class": colour, "cx": places[0][0], "cy": places[0][1], "r": "2.5"})
            else:
                ET.SubElement(svg, "path", {"class": colour, "d": "M" + "L".join(f"{x} {y}" for x, y in places)})

    def _entry(self, legend: ET.Element, name: str, series: Points, colour: str) -> None:
        finite = [y for x, y in series if self._is_drawn((x, y))]
        entry = ET.SubElement(legend, "span")
        ET.SubElement(entry, "i", {"class": colour}).tail = f"{name} {finite[-1]:.4g}" if finite else f"{name} (none)"


class Axis:
    """Where values stand along an axis, as a share of its length, and its round ticks."""

    def __init__(self, values: Sequence[float], log: bool = False) -> None:
        self.log = log
        self.low, self.high = min(values), max(values)
        if self.low == self.high:
            self.low, self.high = (self.low / 2, self.high * 2) if log else _around(self.low)
        self.ticks = self._log_ticks() if log else self._even_ticks()

    def share(self, value: float) -> float:
        """0 at the lower end, 1 at the upper one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def _even_ticks(self) -> list[float]:
        rough = (self.high - self.low) / MAX_TICKS
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(k * magnitude for k in (1, 2, 5, 10) if k * magnitude >= rough)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(k * step, 12 - math.floor(math.log10(step))) for k in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            ticks = [k * 10.0**d for d in decades for k in factors if self.low <= k * 10.0**d <= self.high]
            if len(ticks) >= 3:
                return ticks[:: math.ceil(len(ticks) / MAX_TICKS)]
        return self._even_ticks()


def _around(value: float) -> tuple[float, float]:
    margin = abs(value) / 10 or 1.0
    return value - margin, value + margin


def _x(share: float) -> str:
    return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}"


def _y(share: float) -> str:
    return f"{TOP + (1 - share) * (HEIGHT - TOP - BOTTOM):.1f}"


def shown(value: object) -> str:
    """A value as a page shows it: four figures of a float, yes and no, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def data_uri(picture: Image.Image | str | Path) -> str:
    """The picture itself, as an address. Raises ImageError as `Page.pictures`."""
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        kind, data = "image/png", buffer.getvalue()
    else:
        path = Path(picture)
        if path.suffix.lower() not in MEDIA_TYPES:
            raise ImageError(f"{path} cannot be shown on a page; give one of {', '.join(MEDIA_TYPES)}")
        try:
            kind, data = MEDIA_TYPES[path.suffix.lower()], path.read_bytes()
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
