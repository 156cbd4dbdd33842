"""From verdicts to a benchmark's figures: "official" as the published scripts do it, "strict" by their own rules.

Figures are means under plain names; "CATEGORY/name" is that of one category, and `items` says how many items count.
Where nothing counts, a figure is left out.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from chronoedit.evaluation.bench_formats import KRIS_TYPES
from chronoedit.evaluation.cases import Case, Judged, Verdict

PBENCH = ("action_fidelity", "identity_preservation", "visual_coherence")
IMGEDIT = ("instruction_adherence", "editing_quality", "detail_preservation")
GEDIT = ("editing_success", "minimal_editing", "naturalness", "freedom_from_artifacts")
RISE = ("consistency", "reasoning", "plausibility")
KRIS = ("consistency", "quality", "instruction", "knowledge")
KRIS_FAMILIES = {
    "factual_knowledge": ("attribute_perception", "spatial_perception", "temporal_prediction"),
    "conceptual_knowledge": ("social_science", "natural_science"),
    "procedural_knowledge": ("logical_reasoning", "instruction_decomposition"),
}
WITH_KNOWLEDGE = ("social_science", "natural_science", "logical_reasoning")

Scores = Mapping[str, float]
Figures = dict[str, float]


def pbench_official(judged: Judged) -> Figures:
    """The mean of the three scores an item, and its mean over items; what could not be read does not count."""
    return _pbench([(case, _those(verdict, PBENCH)) for case, verdict in judged if _complete(verdict, PBENCH)])


def pbench_strict(judged: Judged) -> Figures:
    """As official, but what could not be read counts as 1."""
    return _pbench([(case, _filled(verdict, PBENCH, 1.0)) for case, verdict in judged])


def _pbench(rows: Sequence[tuple[Case, Scores]]) -> Figures:
    return _means([(case.category, {"overall": _mean(scores.values()), **scores}) for case, scores in rows])


def imgedit_official(judged: Judged) -> Figures:
    """As `step1_get_avgscore.py` and `step2_typescore.py` do it: two decimals at each step, what has no score dropped.

    The scores are averaged as they are, though the judge is told that the first is the highest. `overall`, which the
    scripts do not give, is the mean of the types.
    """
    rows = [(case.category, _those(verdict, IMGEDIT)) for case, verdict in judged if verdict.scores]
    return _by_type([(kind, {"overall": round(_mean(scores.values()), 2), **scores}) for kind, scores in rows], 2)


def imgedit_strict(judged: Judged) -> Figures:
    """Second and third score no higher than the first; what could not be read counts as 1; nothing is rounded."""
    rows = []
    for case, verdict in judged:
        scores = _filled(verdict, IMGEDIT, 1.0)
        capped = {name: min(score, scores[IMGEDIT[0]]) for name, score in scores.items()}
        rows.append((case.category, {"overall": _mean(capped.values()), **capped}))
    return _by_type(rows, None)


def _by_type(rows: Sequence[tuple[str, Scores]], digits: int | None) -> Figures:
    figures = _means(rows)
    types = {name: value for name, value in figures.items() if name.endswith("/overall")}
    if digits is not None:
        types = {name: round(value, digits) for name, value in types.items()}
    return {**figures, **types, **({"overall": _mean(types.values())} if types else {})}


def gedit_official(judged: Judged) -> Figures:
    """As VIEScore and `calculate_statistics.py` do it, with the guess for an answer that could not be read.

    VIEScore puts a random whole number from 0 to 10 there; here it comes from the item's key, so that figures repeat.
    An item for which there was no answer at all, such as one without a picture, does not count.
    """
    answered = [each for each in judged if each[1].scores or each[1].reason or each[1].refused]
    return _gedit([(case, _gedit_scores(case, verdict, guess=True)) for case, verdict in answered])


def gedit_strict(judged: Judged) -> Figures:
    """As official, but what could not be read counts as 0."""
    return _gedit([(case, _gedit_scores(case, verdict, guess=False)) for case, verdict in judged])


def _gedit_scores(case: Case, verdict: Verdict, guess: bool) -> Scores:
    """Of each pair of scores the lower one, and the root of their product."""
    halves = {}
    for name, pair in (("semantic", GEDIT[:2]), ("quality", GEDIT[2:])):
        given = [verdict.scores[criterion] for criterion in pair if criterion in verdict.scores]
        unread = float(_guess(f"{case.key} {name}")) if guess else 0.0
        halves[name] = min(given) if len(given) == len(pair) else unread
    return {**halves, "overall": math.sqrt(halves["semantic"] * halves["quality"])}


def _guess(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 11


def _gedit(rows: Sequence[tuple[Case, Scores]]) -> Figures:
    """Per language means over groups of means over items, of all items and of those that all models could answer."""
    figures: Figures = {"items": float(len(rows))}
    overall = []
    for language in dict.fromkeys(case.details["language"] for case, _ in rows):
        spoken = [(case, scores) for case, scores in rows if case.details["language"] == language]
        common = [(case, scores) for case, scores in spoken if case.details["intersection"]]
        for prefix, part in ((language, spoken), (f"{language}/intersection", common)):
            groups = _grouped([(case.category, scores) for case, scores in part])
            means = {group: _means_of(of_group) for group, of_group in groups.items()}
            figures |= {f"{prefix}/{name}": value for name, value in _means_of(list(means.values())).items()}
            figures |= {
                f"{prefix}/{group}/{name}": value for group, each in means.items() for name, value in each.items()
            }
        overall.append(figures[f"{language}/overall"])
    return {**figures, **({"overall": _mean(overall)} if overall else {})}


def rise_official(judged: Judged) -> Figures:
    """As `gpt_eval.py` does it: unread items leave the score but count as wrong in the accuracy.

    So do items without consistency, and where some items are marked so, unmarked ones lose the weight of theirs too.
    """
    rows = []
    for case, verdict in judged:
        if not _complete(verdict, _rise_criteria(case)):
            rows.append((case, {"accuracy": 0.0}))
            continue
        scores = _those(verdict, _rise_criteria(case))
        free = case.category != "logical_reasoning" and case.details["consistency_unweighted"]
        right = all(score == 5 for score in scores.values()) and not case.details["consistency_free"]
        rows.append((case, {**scores, "overall": _rise_score(case, scores, free), "accuracy": float(right)}))
    return _rise(rows)


def rise_strict(judged: Judged) -> Figures:
    """Unread items have the score 1; an item is right when all that is judged of it is 5."""
    rows = []
    for case, verdict in judged:
        scores = _filled(verdict, _rise_criteria(case), 1.0)
        overall = _rise_score(case, scores, "consistency" not in scores)
        right = all(score == 5 for score in scores.values())
        rows.append((case, {**scores, "overall": overall, "accuracy": float(right)}))
    return _rise(rows)


def _rise_criteria(case: Case) -> tuple[str, ...]:
    if case.category == "logical_reasoning":
        return ("consistency", "reasoning")
    return ("reasoning", "plausibility") if case.details["consistency_free"] else RISE


def _rise_score(case: Case, scores: Scores, free: bool) -> float:
    if case.category == "logical_reasoning":
        weights = {"consistency": 0.3, "reasoning": 0.7}
    elif free:
        weights = {"reasoning": 0.8, "plausibility": 0.2}
    else:
        weights = {"consistency": 0.3, "reasoning": 0.5, "plausibility": 0.2}
    score = sum(weight * scores[name] for name, weight in weights.items())
    return max(1.0, score / 2) if scores["reasoning"] == 1 else score


def _rise(rows: Sequence[tuple[Case, Scores]]) -> Figures:
    figures = _means([(case.category, scores) for case, scores in rows])
    subtasks = _means([(f"subtask {case.details['subtask']}", scores) for case, scores in rows])
    figures |= {name: value for name, value in subtasks.items() if name.startswith("subtask ")}
    percent = {f"{name}_percent": 25 * (value - 1) for name, value in figures.items() if name.endswith("overall")}
    return {**figures, **percent}


def kris_official(judged: Judged) -> Figures:
    """As `summarize.py` does it: every score counts alike, as (score − 1) · 25; what could not be read does not."""
    return _kris([(case, _those(verdict, _kris_criteria(case))) for case, verdict in judged])


def kris_strict(judged: Judged) -> Figures:
    """As official, but what could not be read counts as 0 of 100."""
    return _kris([(case, _filled(verdict, _kris_criteria(case), 1.0)) for case, verdict in judged])


def _kris_criteria(case: Case) -> tuple[str, ...]:
    return KRIS if _kris_type(case) in WITH_KNOWLEDGE else KRIS[:3]


def _kris_type(case: Case) -> str:
    return next(kind for kind, categories in KRIS_TYPES.items() if case.category in categories)


def _kris(rows: Sequence[tuple[Case, Scores]]) -> Figures:
    """Means over scores, not over items: an item with knowledge has four of them."""
    parts: dict[str, list[float]] = defaultdict(list)
    for case, scores in rows:
        kind = _kris_type(case)
        family = next(name for name, kinds in KRIS_FAMILIES.items() if kind in kinds)
        for criterion, score in scores.items():
            for part in {kind, family, case.category}:
                parts[f"{part}/overall"].append(25 * (score - 1))
                parts[f"{part}/{criterion}"].append(25 * (score - 1))
            parts["overall"].append(25 * (score - 1))
            parts[criterion].append(25 * (score - 1))
    return {
        "items": float(sum(bool(scores) for _, scores in rows)),
        **{name: _mean(each) for name, each in parts.items()},
    }


def _complete(verdict: Verdict, criteria: Sequence[str]) -> bool:
    return all(criterion in verdict.scores for criterion in criteria)


def _those(verdict: Verdict, criteria: Sequence[str]) -> Scores:
    return {name: verdict.scores[name] for name in criteria if name in verdict.scores}


def _filled(verdict: Verdict, criteria: Sequence[str], lowest: float) -> Scores:
    return {name: verdict.scores.get(name, lowest) for name in criteria}


def _grouped(rows: Iterable[tuple[str, Scores]]) -> dict[str, list[Scores]]:
    groups: dict[str, list[Scores]] = defaultdict(list)
    for group, scores in rows:
        groups[group].append(scores)
    return groups


def _means(rows: Sequence[tuple[str, Scores]]) -> Figures:
    """Means over all rows, and over those of each category; a row counts where it has the name."""
    everything = _means_of([scores for _, scores in rows])
    parts = {
        f"{group}/{name}": value
        for group, scores in _grouped(rows).items()
        for name, value in _means_of(scores).items()
    }
    return {"items": float(len(rows)), **everything, **parts}


def _means_of(rows: Sequence[Scores]) -> Figures:
    values: dict[str, list[float]] = defaultdict(list)
    for scores in rows:
        for name, score in scores.items():
            values[name].append(score)
    return {name: _mean(each) for name, each in values.items()}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)
