"""The figures that depend on the embedded weights: what makes them, what stands, and that the pages show no others."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import figures as benchmark
import figures_table
import pages

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PARTS = [(name, each) for name, figure in figures_table.FIGURES.items() for each in figure.parts]
PAGES = [
    "README.md",
    "src/chronoedit/weights/tiny/README.md",
    *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
]


# This test fails from when other weights are put into the tree until `make figures` has run, or what it did not make
# has been withdrawn: that is its use.
@pytest.mark.parametrize(("figure", "part"), PARTS, ids=[f"{name}-{each.name}" for name, each in PARTS])
def test_pages_show_figures_of_the_weights_in_the_tree(figure: str, part: Any) -> None:
    made_with = pages.stamp_of(pages.part(ROOT / part.page, part.name))
    digest = pages.weights_digest()[:8]
    assert made_with == digest, f"run: make figures FIGURES={figure}  (all that are old: make figures)"


def test_every_marked_part_is_a_figure_or_of_random_weights() -> None:
    known = {(each.page, each.name) for _, each in PARTS}
    found = {(page, name) for page in PAGES for name in pages.names_of_parts(ROOT / page)}
    assert {each for each in found if each[1] not in figures_table.WITHOUT_WEIGHTS} == known


def test_every_picture_of_the_pages_is_a_figure() -> None:
    made = {path for figure in figures_table.FIGURES.values() for path in figure.files}
    pictures = {f"docs/pictures/{path.name}" for path in (ROOT / "docs/pictures").iterdir() if path.is_file()}
    assert [path for path in pictures if path not in made and not is_in_a_part(path)] == []


def is_in_a_part(path: str) -> bool:
    name = Path(path).name
    return any(name in pages.part(ROOT / each.page, each.name) for _, each in PARTS)


@pytest.mark.parametrize("name", figures_table.FIGURES)
def test_commands_name_what_exists_and_write_what_is_promised(name: str) -> None:
    figure = figures_table.FIGURES[name]
    for command in figure.commands:
        words = [word for word in shlex.split(command) if not benchmark.ASSIGNMENT.fullmatch(word)]
        assert words[0] in ("python", "chronoedit", "cp")
        assert words[0] != "python" or (ROOT / words[1]).is_file(), command
    written = " ".join(figure.commands)
    assert all(each.page in written or name in ("card",) for each in figure.parts)
    assert list(figures_table.FIGURES).index(name) > max(
        map(list(figures_table.FIGURES).index, figure.needs), default=-1
    )


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Any]:
    """A repository with weights, a page with two parts, scripts that write them, and one that fails."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"one")
    (weights / "chronoedit.json").write_text(json.dumps({"name": "x", "mag_ratios": [[1.0, 1.0]]}))
    (tmp_path / "page.md").write_text(
        "# Page\n<!-- table: begin -->\nold\n<!-- table: end -->\n"
        "<!-- picture: begin -->\n![a](a.txt)\n<!-- picture: end -->\nend\n"
    )
    to_pages = f"import sys, pathlib; sys.path.insert(0, {str(BENCHMARKS)!r}); from pages import update\n"
    (tmp_path / "table.py").write_text(
        f"{to_pages}log = pathlib.Path('log'); log.write_text((log.read_text() if log.exists() else '') + 'table ')\n"
        "update(pathlib.Path('page.md'), '| a table |\\n', 'table')\n"
    )
    (tmp_path / "count.py").write_text("import pathlib; pathlib.Path('counted').open('a').write('x')\n")
    (tmp_path / "draw.py").write_text(
        f"{to_pages}pathlib.Path('a.txt').write_text(sys.argv[1])\n"
        "update(pathlib.Path('page.md'), '![a](a.txt)\\n', 'picture')\n"
    )
    part, figure = figures_table.Part, figures_table.Figure
    table = {
        "table": figure(shows="", commands=("python table.py",), parts=(part("page.md", "table"),), minutes=0),
        "broken": figure(shows="", commands=("python count.py", "python missing.py"), minutes=0, needs=("table",)),
        "picture": figure(
            shows="",
            commands=("SEED=3 python draw.py {out}",),
            parts=(part("page.md", "picture"),),
            files=("a.txt",),
            minutes=0,
        ),
    }
    yield benchmark.Workshop(root=tmp_path, figures=table, weights="weights")


def run(shop: Any, *names: str, **flags: bool) -> int:
    return benchmark.main(benchmark.Options(names=names, **flags), benchmark.Workshop(**vars_of(shop)))


def vars_of(shop: Any) -> dict[str, Any]:
    """A workshop of another process: it reads the record anew."""
    return {"root": shop.root, "figures": shop.figures, "weights": shop.weights}


def calls(shop: Any) -> int:
    return (shop.root / "log").read_text().count("table")


def test_figures_are_made_once_for_the_same_weights_and_failures_are_told(shop: Any, capsys: Any) -> None:
    assert run(shop) == 1
    shown = capsys.readouterr()
    assert "not made: broken: exit code 2 of: python missing.py" in shown.err
    digest = shop.digest[:8]
    page = (shop.root / "page.md").read_text()
    assert f"<!-- table: begin -->\nWeights: {digest}\n\n| a table |\n<!-- table: end -->" in page
    assert f"<!-- picture: begin -->\nWeights: {digest}\n\n![a](a.txt)\n" in page and page.endswith("\nend\n")
    assert (shop.root / "a.txt").read_text() == f"out/figures/{digest}"
    assert run(shop) == 1
    (shop.root / "missing.py").write_text("")
    assert run(shop, "broken") == 0
    assert calls(shop) == 1 and (shop.root / "counted").read_text() == "x"  # the broken one went on at its second
    assert run(shop, check=True) == 0
    assert run(shop, "table", again=True) == 0 and calls(shop) == 2
    assert (shop.root / "page.md").read_text() == page


def test_other_weights_make_them_stale_but_what_is_measured_on_them_does_not(shop: Any, capsys: Any) -> None:
    assert run(shop, "table", "picture") == 0
    settings = shop.root / "weights/chronoedit.json"
    settings.write_text(json.dumps({"name": "x", "mag_ratios": [[1.0, 0.5]]}))
    (shop.root / "weights/README.md").write_text("a card")
    assert run(shop, "table", "picture", check=True) == 0
    (shop.root / "weights/model.safetensors").write_bytes(b"two")
    assert run(shop, "table", "picture", check=True) == 1
    run(shop, list=True)
    shown = capsys.readouterr().out
    assert "page.md, part 'table'" in shown and "not made here" in shown
    assert run(shop, "table", "picture") == 0 and calls(shop) == 2
    settings.write_text(json.dumps({"name": "x", "steps": 3}))
    assert run(shop, "table", check=True) == 1


def test_a_part_that_was_not_written_anew_is_never_stamped(shop: Any, capsys: Any) -> None:
    assert run(shop, "table", "picture") == 0
    (shop.root / "weights/model.safetensors").write_bytes(b"two")
    (shop.root / "table.py").write_text("")
    (shop.root / "draw.py").write_text("")
    assert run(shop, "table", "picture") == 1
    shown = capsys.readouterr().err
    assert "have not written the part 'table' of page.md" in shown and "have not written a.txt" in shown
    assert shop.digest[:8] not in (shop.root / "page.md").read_text()


def test_figures_of_other_weights_can_be_withdrawn_and_made_later(shop: Any, capsys: Any) -> None:
    assert run(shop, "table") == 0
    (shop.root / "weights/model.safetensors").write_bytes(b"two")
    assert run(shop, "table", withdraw=True) == 0
    assert "page.md, part 'table'" in capsys.readouterr().out
    page = (shop.root / "page.md").read_text()
    assert "| a table |" not in page and "make figures FIGURES=table" in page
    assert run(shop, "table", check=True) == 0
    assert run(shop, "table", withdraw=True) == 0 and "nothing to withdraw" in capsys.readouterr().out
    assert benchmark.Workshop(**vars_of(shop)).state("table") == "made with other weights or commands"
    assert run(shop, "table") == 0 and "| a table |" in (shop.root / "page.md").read_text()


def test_a_picture_that_was_changed_does_not_stand(shop: Any) -> None:
    assert run(shop, "picture") == 0
    fresh = benchmark.Workshop(**vars_of(shop))
    assert fresh.state("picture") == "stands"
    (shop.root / "a.txt").write_text("by hand")
    assert fresh.state("picture") == "a.txt is not the one that was made"


def test_unknown_names_and_missing_parts_are_told(shop: Any, capsys: Any) -> None:
    assert run(shop, "tabel") == 2 and "choose from table, broken, picture" in capsys.readouterr().err
    with pytest.raises(ValueError, match="needs one part 'curve'"):
        pages.update(shop.root / "page.md", "", "curve")
