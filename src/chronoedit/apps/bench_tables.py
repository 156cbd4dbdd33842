"""What `eval bench`, `eval bench-compare` and `eval agreement` print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

AGREEMENT = {
    "equal": "equal scores",
    "kappa": "kappa",
    "linear_kappa": "kappa, linear",
    "quadratic_kappa": "kappa, quadratic",
    "difference": "first less second",
}


def summary_tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    """A table for each judge, and one of what needs none; intervals of the editor alone, the page has them all."""
    from chronoedit.evaluation.bench_report import ROW_TITLES, is_main
    from chronoedit.evaluation.bench_run import EDITOR
    from chronoedit.evaluation.objective import MEASURES

    for judge, rows in summary["judges"].items():
        beside = [row for row in rows if row != EDITOR]
        table = Table(title=f"{judge}: {summary['items']} items, with 95 % intervals", title_justify="left")
        _columns(table, "", "official", "strict", *(f"{ROW_TITLES[row]}" for row in beside))
        editor = rows[EDITOR]
        for name in filter(is_main, dict.fromkeys([*editor["strict"], *editor["official"]])):
            cells = [shown_figure(editor[how].get(name)) for how in ("official", "strict")]
            table.add_row(name, *cells, *(_plain(rows[row]["strict"].get(name), "value") for row in beside))
        for count in ("not_judged", "refused", "unread"):
            table.add_row(count.replace("_", " "), "", str(editor[count]), *(str(rows[row][count]) for row in beside))
        yield table
    rows = summary["objective"]
    beside = [row for row in rows if row != EDITOR]
    table = Table(title="without a judge", title_justify="left")
    _columns(table, "", *(ROW_TITLES[row] for row in rows))
    for measure, title in MEASURES.items():
        if any(measure in row for row in rows.values()):
            others = [_plain(rows[row].get(measure), "mean") for row in beside]
            table.add_row(title, shown_figure(rows[EDITOR].get(measure), "mean"), *others)
    table.add_row("edits that failed", *(str(summary["edits"][row]["failed"]) for row in rows))
    yield table


def _plain(figure: Mapping[str, Any] | None, name: str) -> str:
    return "–" if figure is None else f"{figure[name]:.3f}"


def shown_figure(figure: Mapping[str, Any] | None, name: str = "value") -> str:
    """A figure with its interval, as a cell of a table."""
    if figure is None or figure[name] is None:
        return "–"
    interval = figure["interval"]
    around = "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"
    return f"{figure[name]:.3f}{around}"


def compared_table(found: Mapping[str, Any], title: str) -> Table:
    """The main figures of two runs, their difference, and how large one must be to be seen."""
    from chronoedit.evaluation.bench_report import is_main

    table = Table(title=title, title_justify="left")
    _columns(table, "", "A", "B", "A less B", "95 % interval", "items", "detectable")
    for name, pair in found["figures"].items():
        if is_main(name):
            low, high = pair["interval"]
            detectable = "–" if pair["detectable"] is None else f"{pair['detectable']:.3f}"
            figures = (f"{pair['a']:.3f}", f"{pair['b']:.3f}", f"{pair['difference']:+.3f}")
            table.add_row(name, *figures, f"{low:+.3f} to {high:+.3f}", str(pair["pairs"]), detectable)
    return table


def agreement_table(found: Mapping[str, Any]) -> Table:
    """How far two judges agree, by criterion."""
    first, second = found["judges"]
    title = f"{first} and {second} on {found['edits']} edits, {found['missing']} of them not scored by both"
    table = Table(title=title, title_justify="left")
    _columns(table, "", "", "value", "95 % interval", "edits")
    for criterion, figures in found["figures"].items():
        for number, (name, how) in enumerate(AGREEMENT.items()):
            value, interval = figures[name]["value"], figures[name]["interval"]
            shown = "–" if value is None else f"{value:.3f}"
            around = "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
            edits = "" if number else str(figures["items"])
            table.add_row("" if number else criterion, how, shown, around, edits)
    return table


def _columns(table: Table, *titles: str) -> None:
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left", overflow="fold")
