"""The page that a run leaves behind: what was trained on what, its curves, its sample edits, its files.

It is made of the run's folder alone, finished or not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chronoedit.errors import OutputError
from chronoedit.report import Page, Plot, Points
from chronoedit.training.state import LOG_FILE

REPORT_FILE = "report.html"
RECIPE_FILE = "recipe.json"
SAMPLES_FOLDER = "samples"
SHOWN_SAMPLES = 8
VALIDATION = "val_"

Record = dict[str, Any]


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html; its path. Raises OutputError when the folder holds no log, ImageError."""
    records, unread = read_log(folder / LOG_FILE)
    recipe = _recipe(folder)
    page = Page(f"Training run: {folder.resolve().name}")
    page.facts(_summary(recipe, records))
    if unread:
        page.text(f"{unread} lines of the log could not be read and are left out.")
    page.heading("Curves")
    page.plots(_plots(records))
    samples = chosen_samples(folder / SAMPLES_FOLDER)
    if samples:
        page.heading("Sample edits")
        page.text("The same examples from the same noise each time, at the steps that stand below.")
        page.pictures([(path, f"step {step}") for step, path in samples], min_width_px=480)
    page.heading("Recipe")
    page.facts(dict(_flat(recipe)))
    page.heading("Files")
    page.table(["file", "megabytes"], _files(folder))
    page.write(folder / REPORT_FILE)
    return folder / REPORT_FILE


def read_log(path: Path) -> tuple[list[Record], int]:
    """The records of a log by step, and how many lines were none, as a run that is killed may leave the last.

    Of a step that was logged twice, after a run went on from an earlier state, the later record counts.
    Raises OutputError when there is no log, or nothing in it.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror or error}); name the folder of a run") from error
    by_step: dict[int, Record] = {}
    unread = 0
    for line in lines:
        record = _parsed(line)
        if record is None:
            unread += 1
        else:
            by_step[record["step"]] = record
    if not by_step:
        raise OutputError(f"{path} holds no record yet; the first one comes with the first validation")
    return [by_step[step] for step in sorted(by_step)], unread


def _parsed(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _recipe(folder: Path) -> dict[str, Any]:
    path = folder / RECIPE_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}); name the folder of a run") from error


def _summary(recipe: Mapping[str, Any], records: Sequence[Record]) -> dict[str, object]:
    last = records[-1]
    adapter = recipe.get("adapter")
    rows: dict[str, object] = {
        "trained": "all weights" if adapter is None else f"a LoRA of rank {adapter['rank']}",
        "model": recipe.get("model"),
        "training set": recipe.get("set"),
        "steps": last["step"],
        "minutes": last.get("minutes"),
    }
    for name in ("loss", *_names(records, VALIDATION)):
        values = [y for _, y in _points(records, name)]
        if values:
            label = name.replace(VALIDATION, "loss held out, noise ")
            rows[label] = f"{values[0]:.4g} → {values[-1]:.4g}" if len(values) > 1 else values[0]
    rates = [record["items_per_s"] for record in records if "items_per_s" in record]
    if rates:
        rows["items a second"] = sum(rates) / len(rates)
    memory = [record["peak_memory_bytes"] for record in records if "peak_memory_bytes" in record]
    if memory:
        rows["peak memory"] = f"{max(memory) / 1e9:.2f} GB"
    return rows


def _plots(records: Sequence[Record]) -> list[Plot]:
    levels = {
        f"at noise {name.removeprefix(VALIDATION)}": _points(records, name) for name in _names(records, VALIDATION)
    }
    memory = [(step, value / 1e9) for step, value in _points(records, "peak_memory_bytes")]
    return [
        Plot("Loss", {name: _points(records, name) for name in _names(records, "loss")}, log_y=True),
        Plot("Loss held out, by noise level", levels, log_y=True),
        Plot("Learning rate", {"learning rate": _points(records, "lr")}),
        Plot("Gradient norm, before clipping", {"gradient norm": _points(records, "grad_norm")}, log_y=True),
        Plot("Speed", {"items a second": _points(records, "items_per_s")}),
        Plot("Memory", {"peak, GB": memory}),
    ]


def _names(records: Sequence[Record], start: str) -> tuple[str, ...]:
    """Names of figures that begin so, in the order in which they come."""
    return tuple(dict.fromkeys(name for record in records for name in record if name.startswith(start)))


def _points(records: Sequence[Record], name: str) -> Points:
    return [(record["step"], float(record[name])) for record in records if name in record]


def chosen_samples(folder: Path) -> list[tuple[int, Path]]:
    """Step and file of at most 8 sheets of sample edits, the first and the last among them, the latest first."""
    found = sorted((int(path.stem.removeprefix("step-")), path) for path in folder.glob("step-*.png"))
    if len(found) > SHOWN_SAMPLES:
        found = [found[round(k * (len(found) - 1) / (SHOWN_SAMPLES - 1))] for k in range(SHOWN_SAMPLES)]
    return found[::-1]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested tables as "optimisation.learning_rate"."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else value


def _files(folder: Path) -> list[tuple[str, float]]:
    """What lies in the folder; of a folder in it, all together."""
    rows = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == REPORT_FILE:
            continue
        parts = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
        size = sum(each.stat().st_size for each in parts) / 1e6
        rows.append((f"{path.name}/ ({len(parts)} files)" if path.is_dir() else path.name, size))
    return rows
