"""Pages about the exact benchmark: one run, or two of the same items, with nothing beside the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from chronoedit.media import load_image
from chronoedit.report import Page

from .attempts import pixels_of
from .gallery import beside, choose_items, error_map, in_turns, item_card, item_of, verdict
from .run import image_path, read_records
from .statistics import minimal_detectable_effect
from .summary import MEASURES, ROW_TITLES, Record, difference, grouped, pairs_of

CARD_PX, NARROW_CARD_PX = 440, 330
SHOWN_CARDS = 12
SHOWN_ERRORS = 20
INTERVALS = "In brackets: 95 % intervals, by the percentile bootstrap over items."
CARDS = (
    "From left to right: input, edit, truth, and ΔE between the edit and the truth (black 0, pale yellow 40 and more). "
    "Below, where the frames were asked for: reasoning frames as the editor shows them, over the true ones."
)
ROW_NOTES = (
    "Copy gives the input back. Teleport puts the subject where such edits end on average in training scenes. The "
    "oracle is the truth through the editor's autoencoder, for editors that have one. Spoiled targets have one thing "
    "moved, recoloured, missing, doubled or of another kind; the scorer must pass none of them."
)
UNITS = {
    "position_error": "position error, radii",
    "angle_error": "angle error, radians",
    "change_iou": "IoU of the change",
    "colour_delta_e": "ΔE of the colour",
    "outside_delta_e": "ΔE outside the edit",
    "outside_psnr_db": "PSNR outside the edit, dB",
    "overlap_radii": "overlap, radii",
    "trajectory_error": "trajectory error, radii",
    "trajectory_seen": "trajectory, share of frames seen",
}


def write_report(summary: Mapping[str, Any], records: Sequence[Record], folder: Path) -> Path:
    """Write `report.html` of a run; returns its path. Raises OutputError, ImageError for a picture that has gone."""
    rows = [row for row in ROW_TITLES if row in summary]
    measured = [row for row in rows if row != "spoiled"]
    page = Page(f"Exact benchmark: {name_of(summary['run'])}")
    page.facts(_facts(summary))
    page.heading("Success by family")
    page.text(f"{ROW_NOTES} {INTERVALS}")
    _group_table(page, {row: summary[row] for row in rows})
    page.heading("Success by split")
    _group_table(page, summary["splits"])
    page.heading("Success by edit")
    _group_table(page, summary["edits"])
    if "paired" in summary:
        page.heading("With reasoning less without")
        page.table(*_difference_table(summary["paired"]))
    _scores_section(page, summary, measured)
    for row in (row for row in ("model", "no_reasoning") if row in summary):
        _galleries(page, records, folder, row)
    _errors(page, records)
    path = folder / "report.html"
    page.write(path)
    return path


def write_comparison(folder_a: Path, folder_b: Path, path: Path) -> None:
    """Write a page about two runs of the same items, pair by pair.

    Raises OutputError for a folder without a run or what cannot be written, ValueError as `pairs_of`, ImageError.
    """
    of_a, of_b = read_records(folder_a), read_records(folder_b)
    pairs = pairs_of(of_a, of_b, "model", "model")
    page = Page(f"{folder_a.name} (A) less {folder_b.name} (B)")
    least = minimal_detectable_effect([float(pair["a"]) - float(pair["b"]) for pair in pairs])
    page.facts(
        {
            "A": folder_a,
            "B": folder_b,
            "items": len(pairs),
            "both succeed": sum(pair["a"] and pair["b"] for pair in pairs),
            "only A": sum(pair["a"] and not pair["b"] for pair in pairs),
            "only B": sum(pair["b"] and not pair["a"] for pair in pairs),
            "neither": sum(not pair["a"] and not pair["b"] for pair in pairs),
            "detectable": None if least is None else f"{least:.1%}, in four of five such comparisons",
        }
    )
    page.heading("Success of A less that of B, item by item")
    page.text("Intervals are of 95 %, by the percentile bootstrap over pairs: an item is drawn with both its edits.")
    page.table(*_difference_table({"overall": difference(pairs)}))
    for key in ("family", "split", "edit"):
        by = grouped(pairs, key, difference)
        if by:
            page.heading(f"By {key}")
            page.table(*_difference_table(by))
    for side, title in (("a", "Only A succeeds"), ("b", "Only B succeeds")):
        alone = [pair["seed"] for pair in pairs if pair[side] and pair["a"] != pair["b"]]
        _compared_gallery(page, title, [r for r in of_a if r["seed"] in alone], of_b, (folder_a, folder_b))
    page.write(path)


def name_of(run: Mapping[str, Any]) -> str:
    """What a run calls its editor."""
    model = run["model"]
    return str(next((model[key] for key in ("name", "command", "folder") if key in model), "an editor"))


def _facts(summary: Mapping[str, Any]) -> dict[str, object]:
    run, overall = summary["run"], summary["model"]["overall"]
    first, last = summary["seeds"]
    given = ("family", "split", "num_inference_steps", "num_reasoning_steps", "guidance_scale", "guidance_until")
    return {
        "editor": name_of(run),
        "success": _success(overall),
        "items": f"{summary['items']}, seeds {first} to {last}",
        "reasoning": run["reasoning"],
        **{name.replace("_", " "): run[name] for name in (*given, "step_cache") if run.get(name) is not None},
        **({"items without a picture": overall["failed"]} if "failed" in overall else {}),
        **{key: value for key, value in run["model"].items() if key != "name" and value},
    }


def _group_table(page: Page, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Groups downwards, rows across; a row that does not know a group (spoiled targets: a family) leaves it empty."""
    page.table(
        ["", *(ROW_TITLES[row] for row in groups), "items"],
        [
            [name, *(_success(groups[row].get(name)) for row in groups), of_model["items"]]
            for name, of_model in groups["model"].items()
        ],
    )


def _scores_section(page: Page, summary: Mapping[str, Any], rows: Sequence[str]) -> None:
    page.heading("Means of the measures")
    page.text("Over the items that have the measure: the subject's place, for instance, only where it is found.")
    found = {row: summary[row]["overall"]["means"] for row in rows}
    measures = [name for name in MEASURES if any(name in means for means in found.values())]
    page.table(
        ["", *(ROW_TITLES[row] for row in rows)],
        [[UNITS[name], *(_mean(found[row].get(name)) for row in rows)] for name in measures],
    )
    page.heading("How often each check holds")
    checks = {row: summary[row]["overall"]["checks"] for row in rows}
    names = list(dict.fromkeys(name for of_row in checks.values() for name in of_row))
    page.table(
        ["", *(ROW_TITLES[row] for row in rows)],
        [[name.replace("_", " "), *(_share(checks[row].get(name)) for row in rows)] for name in names],
    )
    page.heading("Spoiled targets that pass")
    page.table(
        ["", "success", "items"],
        [[name, _success(group), group["items"]] for name, group in summary["spoiled"].items()],
    )


def _galleries(page: Page, records: Sequence[Record], folder: Path, row: str) -> None:
    for success, title in ((True, "Successes"), (False, "Failures")):
        chosen = choose_items(records, success=success, row=row, count=SHOWN_CARDS)
        total = sum(record["rows"][row]["success"] is success for record in records)
        if chosen:
            page.heading(f"{title} of the {ROW_TITLES[row]}: {len(chosen)} of {total}")
            page.text(CARDS)
            page.pictures([(item_card(record, folder, row), _caption(record, row)) for record in chosen], CARD_PX)


def _compared_gallery(
    page: Page, title: str, of_a: Sequence[Record], all_of_b: Sequence[Record], folders: tuple[Path, Path]
) -> None:
    of_b = {record["seed"]: record for record in all_of_b}
    with_pictures = [r for r in of_a if all(_has_picture(each) for each in (r, of_b[r["seed"]]))]
    chosen = in_turns(with_pictures, SHOWN_CARDS)
    if not chosen:
        return
    page.heading(f"{title}: {len(chosen)} of {len(of_a)}")
    page.text("From left to right: input, A, B, truth; ΔE of A, ΔE of B to the truth.")
    pictures = []
    for record in chosen:
        said = f"A {verdict(record)}; B {verdict(of_b[record['seed']])}"
        pictures.append((_compared_card(record, folders), f"{record['prompt']} [{record['seed']}, {said}]"))
    page.pictures(pictures, 2 * NARROW_CARD_PX)


def _compared_card(record: Record, folders: tuple[Path, Path]) -> Image.Image:
    item = item_of(record)
    edited = [pixels_of(load_image(image_path(folder, record["seed"], "model")), item) for folder in folders]
    maps = [error_map(picture, item.target) for picture in edited]
    return beside([*(Image.fromarray(each) for each in (item.input, *edited, item.target)), *maps])


def _has_picture(record: Record) -> bool:
    return record["rows"]["model"].get("error") is None


def _errors(page: Page, records: Sequence[Record]) -> None:
    failed = [record for record in records if not _has_picture(record)]
    if not failed:
        return
    page.heading(f"Items without a picture: {len(failed)}")
    page.table(["seed", "why"], [[str(r["seed"]), r["rows"]["model"]["error"]] for r in failed[:SHOWN_ERRORS]])
    if len(failed) > SHOWN_ERRORS:
        page.text(f"And {len(failed) - SHOWN_ERRORS} more, in items.jsonl.")


def _difference_table(groups: Mapping[str, Any]) -> tuple[list[str], list[list[object]]]:
    lines: list[list[object]] = []
    for name, group in groups.items():
        if name != "rows":
            low, high = group["interval"]
            lines.append([name, f"{group['difference']:+.1%}", f"{low:+.1%} to {high:+.1%}", group["items"]])
    return ["", "difference", "95 % interval", "items"], lines


def _caption(record: Record, row: str) -> str:
    split = f", {record['split']}" if record.get("split") is not None else ""
    what = f"{record['family']}, {record['edit']}, seed {record['seed']}{split}"
    return f"{record['prompt']} [{what}] {verdict(record, row)}"


def _success(group: Mapping[str, Any] | None) -> str:
    if group is None:
        return ""
    low, high = group["interval"]
    return f"{group['success']:.1%} ({low:.0%} to {high:.0%})"


def _mean(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    low, high = found["interval"]
    return f"{found['mean']:.3g} ({low:.3g} to {high:.3g})"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
