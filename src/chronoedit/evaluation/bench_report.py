"""A page about a run of a benchmark, or about preferences between two: figures, counts, and pictures to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from chronoedit.media import load_image
from chronoedit.report import Page

from .bench_run import EDITOR
from .bench_summary import COUNT, Item
from .cases import Bench
from .objective import MEASURES

SHOWN_ITEMS = 8
SHOWN_FAILURES = 50
PICTURE_PX = 256
REASON_CHARACTERS = 280
COUNTS = ("judged", "not_judged", "refused", "unread")
ROW_TITLES = {EDITOR: "editor", "copy": "copy the input", "noise": "noise"}


def write_report(bench: Bench, summary: Mapping[str, Any], items: Sequence[Item], folder: Path) -> Path:
    """Write `report.html` of a run; returns its path. Raises OutputError, ImageError for a picture that has gone."""
    page = Page(f"{bench.name}: {summary['run']['editor_name']}")
    page.facts(_facts(bench, summary))
    for judge in summary["judges"]:
        _judge_section(page, judge, summary["judges"][judge])
    _objective_section(page, summary)
    _galleries(page, items, list(summary["judges"]), folder)
    _failures(page, items)
    path = folder / "report.html"
    page.write(path)
    return path


def write_pairs_report(
    summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]], runs: tuple[Path, Path], folder: Path
) -> Path:
    """Write `report.html` of preferences between two runs; returns its path. Raises as `write_report`."""
    page = Page(f"{summary['a']} against {summary['b']}")
    counts = ("pairs", "wins_a", "wins_b", "ties", "contradictions", "refused", "unread")
    page.facts({"judge": summary["judge"], **{name.replace("_", " "): summary[name] for name in counts}})
    page.heading("How often A is preferred")
    page.text("A tie is half. Each pair was asked in both orders; where the two contradict each other it is a tie.")
    rows = [[name, *_mean_cells(mean)] for name, mean in summary["a_preferred"].items() if mean is not None]
    page.table(["", "share", "95 % interval", "items"], rows)
    if summary["order"] is not None:
        low, high = summary["order"]["interval"]
        page.text(
            f"Position bias, the share of answers for the picture shown first less a half: "
            f"{summary['order']['mean']:+.3f} ({low:+.3f} to {high:+.3f})."
        )
    for winner, title in (("a", "A won"), ("b", "B won"), ("tie", "Ties")):
        chosen = [record for record in records if record["winner"] == winner and record["asked"]][:SHOWN_ITEMS]
        if chosen:
            page.heading(f"{title}: input, A, B")
            paths = [[runs[0] / r["input"], runs[0] / r["a"], runs[1] / r["b"]] for r in chosen]
            captions = [_pair_caption(record) for record in chosen]
            page.pictures(list(zip(map(beside, paths), captions, strict=True)), 2 * PICTURE_PX)
    path = folder / "report.html"
    page.write(path)
    return path


def beside(paths: Sequence[Path]) -> Image.Image:
    """Pictures side by side, each at most 256 px high and wide. Raises ImageError for one that cannot be read."""
    pictures = [load_image(path) for path in paths]
    for picture in pictures:
        picture.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    sheet = Image.new(
        "RGB", (sum(p.width for p in pictures) + 4 * (len(pictures) - 1), max(p.height for p in pictures))
    )
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width + 4
    return sheet


def is_main(figure: str) -> bool:
    """Whether a figure is of the whole benchmark, or the overall one of a part, and no count."""
    parts = figure.split("/")
    return parts[-1] != COUNT and (len(parts) == 1 or (len(parts) == 2 and parts[-1] == "overall"))


def choose_items(items: Sequence[Item], judge: str | None, *, best: bool, count: int = SHOWN_ITEMS) -> list[Item]:
    """The editor's items that the judge's overall figure puts first, or last; without a judge the first ones."""
    shown = [item for item in items if item["row"] == EDITOR and item["repeat"] == 0 and item["image"] is not None]
    if judge is None:
        return shown[:count]
    return sorted(shown, key=lambda item: _overall(item, judge), reverse=best)[:count]


def _facts(bench: Bench, summary: Mapping[str, Any]) -> dict[str, object]:
    counts = summary["edits"][EDITOR]
    return {
        "benchmark": f"{bench.name} ({bench.source})",
        "editor": summary["run"]["editor_name"],
        "items": summary["items"],
        "repeats": summary["run"]["repeats"],
        "edits that failed": f"{counts['failed']} of {counts['failed'] + counts['done']}",
        "seconds an edit": counts["mean_time_s"],
        "scores": f"{bench.scale[0]:g} to {bench.scale[1]:g}, {', '.join(bench.criteria)}",
        "embedding": ", ".join(summary["objective"][EDITOR]["embedding"]) or "none",
    }


def _judge_section(page: Page, judge: str, rows: Mapping[str, Any]) -> None:
    page.heading(f"Judge {judge}")
    page.text(
        "Official is what the published script makes of the answers; strict counts what is missing or unread as the "
        "lowest score. Intervals are of 95 %, over items."
    )
    names = [name for name in rows[EDITOR]["strict"] if is_main(name)]
    names += [name for name in rows[EDITOR]["official"] if is_main(name) and name not in names]
    titles = [f"{ROW_TITLES[row]}, {how}" for row in rows for how in ("official", "strict")]
    page.table(
        ["", *titles],
        [
            [name, *(_figure(rows[row][how].get(name)) for row in rows for how in ("official", "strict"))]
            for name in names
        ],
    )
    page.table(
        ["", *(count.replace("_", " ") for count in COUNTS)],
        [[ROW_TITLES[row], *(found[count] for count in COUNTS)] for row, found in rows.items()],
    )
    repeats = {name: found for name, found in rows[EDITOR]["repeats"].items() if is_main(name)}
    if any(found["deviation"] is not None for found in repeats.values()):
        page.table(
            ["strict, by repeat", "values", "standard deviation"],
            [
                [name, ", ".join(f"{v:.4g}" for v in found["values"]), found["deviation"]]
                for name, found in repeats.items()
            ],
        )


def _objective_section(page: Page, summary: Mapping[str, Any]) -> None:
    rows = summary["objective"]
    page.heading("Without a judge")
    sources = rows[EDITOR]["region_from"]
    page.text(
        f"The edited region was found from the reference in {sources.get('reference', 0)} edits, and from the edited "
        f'picture itself in {sources.get("edited", 0)}: there "outside" holds only what changed too little to be part '
        "of the edit, which flatters."
    )
    measures = [name for name in MEASURES if any(name in found for found in rows.values())]
    page.table(
        ["", *(ROW_TITLES[row] for row in rows)],
        [[MEASURES[name], *(_mean(found.get(name)) for found in rows.values())] for name in measures],
    )


def _galleries(page: Page, items: Sequence[Item], judges: Sequence[str], folder: Path) -> None:
    judge = judges[0] if judges else None
    sections = [("Items", True)] if judge is None else [("The best items", True), ("The worst items", False)]
    for title, best in sections:
        chosen = choose_items(items, judge, best=best)
        if chosen:
            by = "" if judge is None else f", by {judge}"
            page.heading(f"{title}{by}: input, edit, and the reference where there is one")
            names = [
                [item["input"], item["image"], *([item["reference"]] if item["reference"] else [])] for item in chosen
            ]
            pictures = [beside([folder / name for name in of_item]) for of_item in names]
            captions = [_caption(item, judge) for item in chosen]
            page.pictures(list(zip(pictures, captions, strict=True)), 2 * PICTURE_PX)


def _failures(page: Page, items: Sequence[Item]) -> None:
    failed = [item for item in items if item["error"] is not None]
    if not failed:
        return
    page.heading(f"Edits that failed: {len(failed)}")
    page.table(
        ["item", "row", "repeat", "why"],
        [[item["case"], item["row"], str(item["repeat"]), item["error"]] for item in failed[:SHOWN_FAILURES]],
    )
    if len(failed) > SHOWN_FAILURES:
        page.text(f"And {len(failed) - SHOWN_FAILURES} more, in items.jsonl.")


def _caption(item: Item, judge: str | None) -> str:
    if judge is None or judge not in item["verdicts"]:
        return f"{item['case']}: {item['prompt']}"
    verdict = item["verdicts"][judge]
    scores = ", ".join(f"{name} {score:g}" for name, score in verdict["scores"].items()) or verdict["problem"]
    return f"{item['case']}: {item['prompt']} [{scores}: {_short(verdict['reason'])}]"


def _pair_caption(record: Mapping[str, Any]) -> str:
    return f"{record['case']}: {record['prompt']} [{_short(record['reasons'][0])}]"


def _short(text: str) -> str:
    return text if len(text) <= REASON_CHARACTERS else f"{text[:REASON_CHARACTERS]}…"


def _overall(item: Item, judge: str) -> float:
    figures = item["figures"].get(judge, {})
    return float(figures.get("overall", next(iter(figures.values()), 0.0)))


def _figure(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    if found["interval"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['interval'][0]:.3f} to {found['interval'][1]:.3f})"


def _mean(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else _figure({"value": found["mean"], "interval": found["interval"]})


def _mean_cells(mean: Mapping[str, Any]) -> list[object]:
    low, high = mean["interval"]
    return [mean["mean"], f"{low:.3f} to {high:.3f}", mean["items"]]
