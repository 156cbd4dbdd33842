"""From the records of a benchmark run to its figures: aggregates with intervals, counts of what failed, comparisons."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chronoedit.errors import OutputError
from chronoedit.media import atomic_path

from .bench_run import EDITOR, Edit, read_edits, read_run, read_verdicts
from .cases import Aggregation, Bench, Case, Verdict
from .objective import MEASURES
from .statistics import bootstrap_figures, bootstrap_mean, minimal_detectable_effect, paired_difference

Item = Mapping[str, Any]
"""One line of `items.jsonl`: an edit, with what each judge said of it and the figures that this alone would give."""
COUNT = "items"  # among the figures of a benchmark: how many count, no score
RESAMPLES = 400  # of whole runs, whose figures take a while
NOT_JUDGED = "It has not been judged."


def items_of(cases: Sequence[Case], bench: Bench, folder: Path) -> list[dict[str, Any]]:
    """The edits of these cases, each with the verdicts on it and its own figures by judge. Raises OutputError.

    A figure of an item is what the strict aggregation makes of that item alone.
    """
    edits, verdicts = read_edits(folder), read_verdicts(folder)
    by_case: dict[str, list[Edit]] = {}
    for edit in edits.values():
        by_case.setdefault(edit.case, []).append(edit)
    return [_item(case, edit, bench, verdicts) for case in cases for edit in by_case.get(case.key, ())]


def write_items(items: Sequence[Item], folder: Path) -> None:
    """Write `items.jsonl`, whole or not at all. Raises OutputError."""
    with atomic_path(folder / "items.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n")


def read_items(folder: Path) -> list[dict[str, Any]]:
    """The lines of `items.jsonl`. Raises OutputError when there are none that can be read."""
    path = folder / "items.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise OutputError(
            f"there is no {path}; finish that run first, with the same `chronoedit eval bench`"
        ) from error
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path} cannot be read ({error}); repeat the command of that run, and it is written"
        ) from error


def summarise(cases: Sequence[Case], bench: Bench, items: Sequence[Item]) -> dict[str, Any]:
    """The summary of a run as JSON data.

    "judges" has, by judge and row, the "official" and "strict" aggregates with intervals over cases, each criterion's
    mean, the counts of what failed, and how repeats differ; "objective" has, by row, the mean of each score without a
    model. Raises ValueError without items.
    """
    if not items:
        raise ValueError("there is nothing to summarise: no item is done; run at least one")
    rows = list(dict.fromkeys(item["row"] for item in items))
    judges = sorted({judge for item in items for judge in item["verdicts"]})
    by_key = {case.key: case for case in cases}
    of_rows = {row: [item for item in items if item["row"] == row] for row in rows}
    return {
        "items": len({item["case"] for item in items}),
        "edits": {row: _edit_counts(found) for row, found in of_rows.items()},
        "judges": {
            judge: {row: _of_row(found, judge, bench, by_key) for row, found in of_rows.items()} for judge in judges
        },
        "objective": {row: _objective(found) for row, found in of_rows.items()},
    }


def compare(
    items_a: Sequence[Item], items_b: Sequence[Item], judge_a: str | None = None, judge_b: str | None = None
) -> dict[str, Any]:
    """Figures of the editor in one run less those in another, case by case, repeats averaged first.

    By figure: the mean difference with its interval, the number of pairs, and the minimal detectable effect. The judge
    may be left out where a run has only one. Raises ValueError when the runs have no case, or no judge, in common.
    """
    a, b = (_editor_figures(items, judge) for items, judge in ((items_a, judge_a), (items_b, judge_b)))
    common = [case for case in a if case in b]
    if not common or len(common) < max(len(a), len(b)):
        raise ValueError(
            f"the two runs are not of the same items: {len(a)} and {len(b)}, {len(common)} in common; run both on the "
            "same data, with the same --limit"
        )
    shared = dict.fromkeys(name for case in common for name in a[case] if name in b[case])
    names = [name for name in shared if name.split("/")[-1] != COUNT]
    return {"pairs": len(common), "figures": {name: _paired(a, b, common, name) for name in names}}


def compare_runs(a: Path, b: Path, judge_a: str | None = None, judge_b: str | None = None) -> dict[str, Any]:
    """The comparison of two finished runs. Raises as `compare` and `read_items`, ValueError for other benchmarks."""
    names = [read_run(folder)["bench"] for folder in (a, b)]
    if names[0] != names[1]:
        raise ValueError(f"{a} is a run of {names[0]} and {b} of {names[1]}; compare two runs of one benchmark")
    return compare(read_items(a), read_items(b), judge_a, judge_b)


def judge_of(items: Sequence[Item], judge: str | None) -> str:
    """The judge that is asked for, or the only one. Raises ValueError, naming the choices."""
    judges = sorted({name for item in items for name in item["verdicts"]})
    if judge is None and len(judges) == 1:
        return judges[0]
    if judge is None or judge not in judges:
        said = "no judge was named" if judge is None else f"judge {judge!r} has not judged this run"
        raise ValueError(f"{said}; choose from {', '.join(judges) or 'none: it was judged by nobody yet'}")
    return judge


def verdict_of(item: Item, judge: str) -> Verdict:
    """What a judge said of an item; a verdict without scores where there was nothing to judge, or it was not asked."""
    if item["error"] is not None:
        return Verdict(scores={}, problem=f"There is no picture: {item['error']}")
    found = item["verdicts"].get(judge)
    return Verdict(scores={}, problem=NOT_JUDGED) if found is None else Verdict(**found)


def _item(case: Case, edit: Edit, bench: Bench, verdicts: Mapping[str, Mapping[str, Verdict]]) -> dict[str, Any]:
    item: dict[str, Any] = {"key": edit.key, **{name: getattr(edit, name) for name in Edit.__dataclass_fields__}}
    said = {judge: found[edit.key] for judge, found in verdicts.items() if edit.key in found}
    item["verdicts"] = {judge: _verdict_json(verdict) for judge, verdict in said.items()}
    strict = bench.aggregate["strict"]
    judges = list(verdicts) if edit.error is not None else list(said)
    item["figures"] = {judge: _finite(strict([(case, verdict_of(item, judge))])) for judge in judges}
    return item


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in Verdict.__dataclass_fields__}


def _edit_counts(items: Sequence[Item]) -> dict[str, Any]:
    times = [item["time_s"] for item in items if item["error"] is None]
    return {
        "done": len(times),
        "failed": len(items) - len(times),
        "mean_time_s": float(np.mean(times)) if times else None,
    }


def _of_row(items: Sequence[Item], judge: str, bench: Bench, cases: Mapping[str, Case]) -> dict[str, Any]:
    """The figures of one row by one judge, of the edits that it has seen and those that failed."""
    seen = [item for item in items if judge in item["verdicts"] or item["error"] is not None]
    verdicts = [verdict_of(item, judge) for item in seen]
    asked = [verdict for verdict, item in zip(verdicts, seen, strict=True) if item["error"] is None]
    strict = _aggregated(seen, judge, bench.aggregate["strict"], cases)
    # Intervals of the official figures take as long as those of the strict ones: for the editor alone.
    intervals = bool(items) and items[0]["row"] == EDITOR
    return {
        "judged": len(asked),
        "not_judged": len(items) - len(seen),
        "refused": sum(verdict.refused for verdict in asked),
        "unread": sum(verdict.problem is not None and not verdict.refused for verdict in asked),
        "criteria": _criteria(seen, verdicts, bench),
        "official": _aggregated(seen, judge, bench.aggregate["official"], cases, intervals=intervals),
        "strict": strict,
        "repeats": _repeats(seen, judge, bench.aggregate["strict"], cases),
    }


def _criteria(items: Sequence[Item], verdicts: Sequence[Verdict], bench: Bench) -> dict[str, Any]:
    """The mean of each criterion over the cases that have it, repeats averaged first."""
    means = {}
    for criterion in bench.criteria:
        by_case: dict[str, list[float]] = {}
        for item, verdict in zip(items, verdicts, strict=True):
            if criterion in verdict.scores:
                by_case.setdefault(item["case"], []).append(verdict.scores[criterion])
        if by_case:
            means[criterion] = bootstrap_mean([float(np.mean(values)) for values in by_case.values()]).to_json()
    return means


def _aggregated(
    items: Sequence[Item],
    judge: str,
    aggregation: Aggregation,
    cases: Mapping[str, Case],
    *,
    intervals: bool = True,
) -> dict[str, Any]:
    """Each aggregate with its interval: whole cases are resampled, with all their repeats."""
    repeats = _by_repeat(items, judge, cases)
    keys = list(dict.fromkeys(item["case"] for item in items))

    def figures(drawn: Sequence[int] | np.ndarray) -> dict[str, float]:
        names = [keys[index] for index in drawn]
        return _mean_figures(
            [aggregation([judged[name] for name in names if name in judged]) for judged in repeats.values()]
        )

    if not keys:
        return {}
    found = bootstrap_figures(len(keys), figures, resamples=RESAMPLES) if intervals else {}
    return {
        name: {"value": value, "interval": list(found[name]) if name in found else None}
        for name, value in figures(range(len(keys))).items()
    }


def _repeats(items: Sequence[Item], judge: str, aggregation: Aggregation, cases: Mapping[str, Case]) -> dict[str, Any]:
    """By strict figure, its value in each repeat and their standard deviation (None for a single repeat)."""
    of_repeats = [_finite(aggregation(list(judged.values()))) for judged in _by_repeat(items, judge, cases).values()]
    names = [name for name in (of_repeats or [{}])[0] if all(name in figures for figures in of_repeats)]
    values = {name: [figures[name] for figures in of_repeats] for name in names}
    return {
        name: {"values": found, "deviation": float(np.std(found, ddof=1)) if len(found) > 1 else None}
        for name, found in values.items()
    }


def _by_repeat(
    items: Sequence[Item], judge: str, cases: Mapping[str, Case]
) -> dict[int, dict[str, tuple[Case, Verdict]]]:
    found: dict[int, dict[str, tuple[Case, Verdict]]] = {}
    for item in items:
        found.setdefault(item["repeat"], {})[item["case"]] = (cases[item["case"]], verdict_of(item, judge))
    return found


def _mean_figures(of_repeats: Sequence[Mapping[str, float]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for figures in of_repeats:
        for name, value in _finite(figures).items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Without what has no value: the mean of a category that has no item."""
    return {name: float(value) for name, value in figures.items() if math.isfinite(value)}


def _objective(items: Sequence[Item]) -> dict[str, Any]:
    """The mean of each score without a model over the edits that have it, and where their regions came from."""
    scores = [item["objective"] for item in items if item["objective"] is not None]
    found: dict[str, Any] = {}
    for measure in MEASURES:
        values = [score[measure] for score in scores if score[measure] is not None]
        if values:
            found[measure] = bootstrap_mean(values).to_json()
    sources = [score["region_from"] for score in scores]
    networks = sorted({score["embedding"] for score in scores} - {None})
    return {"region_from": {name: sources.count(name) for name in sorted(set(sources))}, "embedding": networks, **found}


def _editor_figures(items: Sequence[Item], judge: str | None) -> dict[str, dict[str, float]]:
    """By case, the figures of the editor's row, averaged over repeats; without any judge, the objective scores."""
    judges = {name for item in items for name in item["verdicts"]}
    name = judge_of(items, judge) if judges or judge is not None else None
    by_case: dict[str, list[Mapping[str, float]]] = {}
    for item in items:
        if item["row"] == EDITOR:
            by_case.setdefault(item["case"], []).append(_figures(item, name))
    return {case: _mean_figures(figures) for case, figures in by_case.items()}


def _figures(item: Item, judge: str | None) -> dict[str, float]:
    scores = item["objective"] or {}
    plain = {measure: scores[measure] for measure in MEASURES if scores.get(measure) is not None}
    return plain if judge is None else {**item["figures"].get(judge, {}), **plain}


def _paired(
    a: Mapping[str, Mapping[str, float]], b: Mapping[str, Mapping[str, float]], cases: Sequence[str], name: str
) -> dict[str, Any]:
    pairs = [(a[case][name], b[case][name]) for case in cases if name in a[case] and name in b[case]]
    mean = paired_difference([x for x, _ in pairs], [y for _, y in pairs])
    return {
        "a": float(np.mean([x for x, _ in pairs])),
        "b": float(np.mean([y for _, y in pairs])),
        "difference": mean.mean,
        "interval": [mean.low, mean.high],
        "pairs": mean.count,
        "detectable": minimal_detectable_effect([x - y for x, y in pairs]),
    }
