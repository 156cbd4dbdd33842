"""From what a judge said of edits whose truth is known, to how far it can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .rates import Answers, Rate, difference_of, half_difference_of, mean_of, rate_of
from .statistics import bootstrap_mean

TRUE, COPY = "true", "copy"
"""The kinds of edited picture that are no spoiled target."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a judge said of one picture of a known kind.

    It has answered when it has scores and no problem: a mean over some of the criteria is none over all.
    """

    seed: int
    family: str
    edit: str
    prompt: str
    kind: str
    scores: Mapping[str, float]
    reason: str = ""
    problem: str | None = None
    refused: bool = False

    @property
    def answered(self) -> bool:
        return bool(self.scores) and self.problem is None

    @property
    def overall(self) -> float:
        """The mean over the criteria."""
        return sum(self.scores.values()) / len(self.scores)

    def is_right(self, threshold: float) -> bool:
        """Whether a true edit passes, or a bad one does not; not answering is never right."""
        return self.answered and (self.overall >= threshold) == (self.kind == TRUE)


Judgements = Sequence[Judgement]


def summarise(judgements: Judgements, *, threshold: float, scale: tuple[float, float]) -> dict[str, Any]:
    """The summary of a check as JSON data: all pictures together, by family, by edit, by kind, and over thresholds.

    A rate has Wilson's interval, widened where several answers share an item (`rates`); a mean score has a bootstrap
    interval over items. What a group has too few pictures for is None. Raises ValueError when no picture was judged.
    """
    if not judgements:
        raise ValueError("no picture of these items could be judged; take more items, or another family")
    kinds = sorted({j.kind for j in judgements}, key=lambda kind: (kind != TRUE, kind != COPY, kind))
    return {
        "items": len({j.seed for j in judgements}),
        "pictures": len(judgements),
        "threshold": threshold,
        "overall": rates(judgements, threshold),
        "refused": rate_of([(j.seed, float(j.refused)) for j in judgements]).to_json(),
        "unreadable": rate_of([(j.seed, float(not j.answered and not j.refused)) for j in judgements]).to_json(),
        "kinds": {kind: _of_kind([j for j in judgements if j.kind == kind], threshold) for kind in kinds},
        "families": _grouped(judgements, lambda j: j.family, threshold),
        "edits": _grouped(judgements, lambda j: j.edit, threshold),
        "thresholds": over_thresholds(judgements, scale),
    }


def rates(judgements: Judgements, threshold: float) -> dict[str, Any]:
    """How often the judge is right, and which way it leans.

    `sensitivity` is the share of true edits that pass, `specificity` that of spoiled ones that do not, `accuracy` their
    mean, `leans_to_passing` half their difference. `strict_accuracy` counts a picture without an answer as wrong.
    `ranks_true_first` is how often the true edit has the higher score beside a spoiled one of the same item, and
    `ranks_true_over_copy` beside the copy; ties are half. `copies_passed` is the share of copies that pass, and
    `leans_to_copies` that less the share of spoiled edits that do.
    """
    answered = [j for j in judgements if j.answered]
    true, copies, bad = _kinds(answered)
    sensitivity, specificity = _right(true, threshold), _right(bad, threshold)
    copies_passed, bad_passed = _passed(copies, threshold), _passed(bad, threshold)
    all_true, _, all_bad = _kinds(judgements)
    found = {
        "accuracy": _of_both(mean_of, sensitivity, specificity),
        "strict_accuracy": _of_both(mean_of, _right(all_true, threshold), _right(all_bad, threshold)),
        "sensitivity": _of_one(sensitivity),
        "specificity": _of_one(specificity),
        "ranks_true_first": _of_one(_ranked(true, bad)),
        "ranks_true_over_copy": _of_one(_ranked(true, copies)),
        "copies_passed": _of_one(copies_passed),
        "leans_to_passing": _of_both(half_difference_of, sensitivity, specificity),
        "leans_to_copies": _of_both(difference_of, copies_passed, bad_passed),
    }
    return {name: None if rate is None else rate.to_json() for name, rate in found.items()}


def over_thresholds(judgements: Judgements, scale: tuple[float, float], steps: int = 16) -> list[dict[str, float]]:
    """Sensitivity, specificity and their mean at thresholds spread evenly over the scale; [] without both kinds."""
    true, _, bad = _kinds([j for j in judgements if j.answered])
    if not true or not bad:
        return []
    of_true, of_bad = (np.array([j.overall for j in group]) for group in (true, bad))
    rows = []
    for threshold in np.linspace(*scale, steps + 1)[1:]:
        passed, refused = float((of_true >= threshold).mean()), float((of_bad < threshold).mean())
        rows.append(
            {
                "threshold": float(threshold),
                "sensitivity": passed,
                "specificity": refused,
                "accuracy": (passed + refused) / 2,
            }
        )
    return rows


def mistakes(judgements: Judgements, threshold: float, count: int) -> list[Judgement]:
    """Up to `count` answers that are wrong: the worst of each kind of picture, then the second worst, and so on."""
    wrong = [j for j in judgements if j.answered and not j.is_right(threshold)]
    wrong.sort(key=lambda j: (-abs(j.overall - threshold), j.seed))
    turns: dict[str, int] = {}
    ordered = []
    for j in wrong:
        turns[j.kind] = turns.get(j.kind, 0) + 1
        ordered.append((turns[j.kind], j))
    return [j for _, j in sorted(ordered, key=lambda pair: pair[0])[:count]]


def _kinds(judgements: Judgements) -> tuple[Judgements, Judgements, Judgements]:
    """True edits, copies, spoiled edits."""
    return (
        [j for j in judgements if j.kind == TRUE],
        [j for j in judgements if j.kind == COPY],
        [j for j in judgements if j.kind not in (TRUE, COPY)],
    )


def _right(judgements: Judgements, threshold: float) -> Answers:
    return [(j.seed, float(j.is_right(threshold))) for j in judgements]


def _passed(judgements: Judgements, threshold: float) -> Answers:
    return [(j.seed, float(j.overall >= threshold)) for j in judgements]


def _ranked(true: Judgements, others: Judgements) -> Answers:
    """1 where the item's true edit has the higher score, 1/2 for equal ones."""
    best = {j.seed: j.overall for j in true}
    beside = [(j.seed, best[j.seed], j.overall) for j in others if j.seed in best]
    return [(seed, 0.5 + float(np.sign(good - bad)) / 2) for seed, good, bad in beside]


def _of_one(answers: Answers) -> Rate | None:
    return rate_of(answers) if answers else None


def _of_both(combined: Callable[[Answers, Answers], Rate], first: Answers, second: Answers) -> Rate | None:
    return combined(first, second) if first and second else None


def _of_kind(judgements: Judgements, threshold: float) -> dict[str, Any]:
    """Mean score, overall and by criterion, and how many pass."""
    answered = [j for j in judgements if j.answered]
    if not answered:
        return {"pictures": len(judgements), "score": None, "passed": None, "criteria": {}}
    criteria = list(dict.fromkeys(name for j in answered for name in j.scores))
    return {
        "pictures": len(judgements),
        "score": bootstrap_mean([j.overall for j in answered]).to_json(),
        "passed": rate_of(_passed(answered, threshold)).to_json(),
        "criteria": {
            name: bootstrap_mean([j.scores[name] for j in answered if name in j.scores]).to_json() for name in criteria
        },
    }


def _grouped(judgements: Judgements, key: Callable[[Judgement], str], threshold: float) -> dict[str, Any]:
    names = sorted({key(j) for j in judgements})
    return {name: rates([j for j in judgements if key(j) == name], threshold) for name in names}
