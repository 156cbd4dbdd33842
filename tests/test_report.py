"""Pages: nothing from outside, everything escaped, curves where their axes say."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from chronoedit.errors import ImageError, OutputError
from chronoedit.report import HEIGHT, LEFT, WIDTH, Axis, Page, Plot, data_uri

VOID = {"meta", "img", "br"}


class Outline(HTMLParser):
    """Tags with their attributes in order, all text, and whether the tags close as they opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open += [tag] * (tag not in VOID)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def whole_page() -> Page:
    page = Page("Run <7> & more")
    page.heading("What <script>alert(1)</script>")
    page.text('a "quoted" & <b>bold</b> text ]]> �')
    page.facts({"<model>": "tiny", "steps": 300, "rate": 1e-4, "clips": None, "good": True})
    page.table(["name", "value"], [["<i>a</i>", 0.123456], ["b", 2]])
    page.plots([Plot("Loss & co", {"<train>": [(1, 0.9), (300, 0.4)], "val": [(1, 0.8)]}, log_y=True, caption="c < d")])
    page.pictures([(Image.new("RGB", (4, 4), "red"), 'a "red" <square>')])
    return page


def test_everything_is_escaped_and_closed() -> None:
    outline = Outline(whole_page().html())
    assert outline.open == []
    assert not outline.named("script") and not outline.named("b") and len(outline.named("i")) == 2  # the legend's
    assert "What <script>alert(1)</script>" in outline.words
    assert outline.named("img")[0]["alt"] == 'a "red" <square>'
    assert {"<train> 0.4", "val 0.8", "c < d", "0.1235", "yes", "–"} <= set(outline.words)


def test_nothing_comes_from_outside(tmp_path: Path) -> None:
    whole_page().write(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    addresses = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^">)]{0,30})', html)
    assert addresses and all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "http" not in html and "<link" not in html and "@import" not in html
    assert 'name="viewport"' in html and "prefers-color-scheme: dark" in html


def test_pictures_are_in_the_page(tmp_path: Path) -> None:
    picture = Image.new("RGB", (5, 3), (10, 20, 30))
    picture.save(tmp_path / "a.png")
    for source in (picture, tmp_path / "a.png", str(tmp_path / "a.png")):
        kind, data = data_uri(source).split(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0)) == (10, 20, 30)
    with pytest.raises(ImageError, match="cannot be read"):
        data_uri(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot be shown"):
        data_uri(tmp_path / "a.svg")


def test_curves_stand_where_their_axes_say() -> None:
    outline = Outline(_html(Plot("Loss", {"a": [(0, 1.0), (50, 0.1), (100, 0.01)]}, log_y=True)))
    (path,) = outline.named("path")
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", str(path["d"]))[1:]]
    assert points[0][0] == LEFT and points[-1][0] == WIDTH - 8
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.1)
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1)  # a decade is half the height
    assert 0 < points[0][1] < points[2][1] < HEIGHT
    ticks = [word for word in outline.words if re.fullmatch(r"[\d.]+", word)]
    assert ticks == ["0.01", "0.1", "1", "0", "20", "40", "60", "80", "100"]


def test_what_cannot_be_drawn_leaves_a_gap() -> None:
    holes = [(1, 1.0), (2, 2.0), (3, math.nan), (4, 1.0), (5, math.inf), (6, -1.0), (7, 3.0)]
    outline = Outline(_html(Plot("p", {"a": holes, "b": [(1, 0.0)]}, log_y=True)))
    (path,) = outline.named("path")
    assert str(path["d"]).count("L") == 1 and len(outline.named("circle")) == 2
    assert "b (none)" in outline.words
    page = Page("t")
    page.plots([Plot("empty", {"a": []})])
    assert not Outline(page.html()).named("svg")
    with pytest.raises(ValueError, match="no point"):
        Plot("empty", {"a": [(1, math.nan)]}).figure()


@pytest.mark.parametrize(
    ("values", "log", "ticks"),
    [
        ([0, 1], False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([1, 12000], False, [2000, 4000, 6000, 8000, 10000, 12000]),
        ([-3, 4], False, [-2, 0, 2, 4]),
        ([1e-5, 1e-4], False, [2e-5, 4e-5, 6e-5, 8e-5, 1e-4]),
        ([7, 7], False, [6.5, 7, 7.5]),
        ([0, 0], False, [-1, -0.5, 0, 0.5, 1]),
        ([1e-4, 1e3], True, [1e-4, 1e-2, 1, 1e2]),
        ([0.21, 0.42], True, [0.25, 0.3, 0.35, 0.4]),
    ],
)
def test_ticks_are_round(values: list[float], log: bool, ticks: list[float]) -> None:
    assert Axis(values, log).ticks == pytest.approx(ticks)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a row of 1 values for 2 columns"):
        Page("t").table(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="9 curves"):
        Plot("p", {str(k): [] for k in range(9)})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        Page("t").write(tmp_path / "file" / "page.html")


def _html(plot: Plot) -> str:
    page = Page("t")
    page.plots([plot])
    return page.html()
