"""From the records of a run to its summary: success and means per row, family and edit, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from chronoedit.world.splits import SPLITS

from .statistics import bootstrap_mean, paired_difference

Record = Mapping[str, Any]

MEASURES = (
    "position_error",
    "angle_error",
    "change_iou",
    "colour_delta_e",
    "outside_delta_e",
    "outside_psnr_db",
    "overlap_radii",
    "trajectory_error",
    "trajectory_seen",
)
MOVING_FAMILIES = ("table", "falling", "street", "kitchen", "tools", "toppling")
"""Families whose edits are things that move or act on each other; the others' change what a thing looks like."""

ROW_TITLES = {
    "model": "model",
    "no_reasoning": "model, no reasoning",
    "copy": "copy the input",
    "teleport": "teleport to the mean end",
    "oracle": "oracle (truth through the autoencoder)",
    "spoiled": "spoiled targets",
}
"""The rows of a run, in the order in which they are shown."""


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """The summary of a run as JSON data.

    A key for each row of the records ("model", "copy", "oracle", …) holds "overall" and each family, where "failed"
    counts the items without a picture; "spoiled" holds "overall" and each way of spoiling; "edits" holds each row by
    edit, and "splits", where items have one, by split; "paired", where the run has the row "no_reasoning", the success
    of "model" less that of "no_reasoning". Raises ValueError without records.
    """
    if not records:
        raise ValueError("there is nothing to summarise: no item is done; run at least one")
    rows = list(records[0]["rows"])
    summary: dict[str, Any] = {"items": len(records), "seeds": [r["seed"] for r in (records[0], records[-1])]}
    for row in rows:
        of_row = partial(_of_row, row=row)
        summary[row] = {"overall": of_row(records), **grouped(records, "family", of_row)}
    summary["spoiled"] = _of_spoiled(records)
    summary["edits"] = {row: grouped(records, "edit", partial(_of_row, row=row)) for row in rows}
    in_splits = [record for record in records if record.get("split") is not None]
    if in_splits:
        summary["splits"] = {row: grouped(in_splits, "split", partial(_of_row, row=row)) for row in rows}
    if "no_reasoning" in rows:
        summary["paired"] = compare(records, records, "model", "no_reasoning")
    return summary


def compare(records_a: Sequence[Record], records_b: Sequence[Record], row_a: str, row_b: str) -> dict[str, Any]:
    """Success of one row less that of another, item by item: overall, on the moving families, and by family.

    The two may come from different runs. Raises ValueError as `pairs_of`.
    """
    pairs = pairs_of(records_a, records_b, row_a, row_b)
    moving = [pair for pair in pairs if pair["family"] in MOVING_FAMILIES]
    return {
        "rows": [row_a, row_b],
        "overall": difference(pairs),
        **({"moving": difference(moving)} if moving else {}),
        **grouped(pairs, "family", difference),
    }


def pairs_of(records_a: Sequence[Record], records_b: Sequence[Record], row_a: str, row_b: str) -> list[Record]:
    """Each item of two runs once: what it is, and whether "a" and "b" succeeded.

    Raises ValueError when the two have not done the same scenes.
    """
    other = {_scene(record): record for record in records_b}
    common = len(other.keys() & {_scene(record) for record in records_a})
    if not len(records_a) == len(records_b) == common:
        raise ValueError(
            f"the two runs are not of the same items: {len(records_a)} and {len(records_b)}, {common} in common; "
            "run both with the same --items, --first-seed, --family and --split"
        )
    return [
        {
            **{name: record.get(name) for name in ("seed", "family", "edit", "split", "prompt")},
            "a": record["rows"][row_a]["success"],
            "b": other[_scene(record)]["rows"][row_b]["success"],
        }
        for record in records_a
    ]


def difference(pairs: Sequence[Record]) -> dict[str, Any]:
    """Success of A less that of B over these pairs, with its interval."""
    a, b = ([float(pair[side]) for pair in pairs] for side in ("a", "b"))
    mean = paired_difference(a, b)
    return {"difference": mean.mean, "interval": [mean.low, mean.high], "items": mean.count}


def _scene(record: Record) -> tuple[int, str, str]:
    return record["seed"], record["family"], record["prompt"]


def grouped(
    records: Sequence[Record], key: str, of_group: Callable[[Sequence[Record]], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """`of_group` of the records of each value of `key`, but None; splits as the world orders them, else by name."""
    names = sorted({record[key] for record in records if record[key] is not None})
    names.sort(key=lambda name: SPLITS.index(name) if name in SPLITS else -1)
    return {name: of_group([record for record in records if record[key] == name]) for name in names}


def _of_row(records: Sequence[Record], row: str) -> dict[str, Any]:
    scores = [record["rows"][row] for record in records]
    success = bootstrap_mean([float(score["success"]) for score in scores])
    checks = sorted({name for score in scores for name in score["checks"]})
    held = {name: [score["checks"][name] for score in scores if name in score["checks"]] for name in checks}
    failed = sum(score.get("error") is not None for score in scores)
    return {
        "success": success.mean,
        "interval": [success.low, success.high],
        "items": success.count,
        **({"failed": failed} if failed else {}),
        "means": _means(scores),
        "checks": {name: sum(values) / len(values) for name, values in held.items()},
    }


def _means(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each measure over the items that have it; `items` says how many those are."""
    means = {}
    for measure in MEASURES:
        values = [score[measure] for score in scores if score[measure] is not None]
        if values:
            means[measure] = bootstrap_mean(values).to_json()
    return means


def _of_spoiled(records: Sequence[Record]) -> dict[str, Any]:
    """How many spoiled targets the scorer passed: it should be none."""
    ways = sorted({way for record in records for way in record["spoiled"]})
    passed = {way: [float(r["spoiled"][way]) for r in records if way in r["spoiled"]] for way in ways}
    passed["overall"] = [value for way in ways for value in passed[way]]
    summary = {}
    for way, values in passed.items():
        if values:
            success = bootstrap_mean(values)
            summary[way] = {"success": success.mean, "interval": [success.low, success.high], "items": success.count}
    return summary
