"""The pages of a judge check and of a vote: figures with their intervals, and pictures to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from chronoedit.media import contact_sheet, load_image
from chronoedit.report import Page, Plot
from chronoedit.world import sample_item

from .contest import Pair
from .judge_check import edited_picture
from .trust import Judgement, mistakes
from .votes import WINNERS, Vote, tallies

SHOWN_MISTAKES = 12
SHOWN_ITEMS = 6  # of each winner
SHOWN_REASON = 400  # characters
LARGEST_SHOWN_PX = 512

RATES = {
    "accuracy": "right, true and spoiled edits weighing the same",
    "strict_accuracy": "the same, no answer being wrong",
    "sensitivity": "true edits that pass",
    "specificity": "spoiled edits that do not pass",
    "ranks_true_first": "true edit scored above a spoiled one of its scene",
    "ranks_true_over_copy": "true edit scored above the copied input",
    "copies_passed": "copied inputs that pass",
    "leans_to_passing": "leaning to passing (0: to neither side)",
    "leans_to_copies": "copies pass more often than spoiled edits by",
}
"""What each rate of `trust.rates` is, in words."""


def check_page(summary: Mapping[str, Any], judgements: Sequence[Judgement], *, judge: str, size_px: int) -> Page:
    """The page of a judge check, with the worst mistakes."""
    page = Page("Does this judge deserve trust?")
    page.facts(
        {
            "judge": judge,
            "scenes": summary["items"],
            "pictures judged": summary["pictures"],
            "left out, the truth being unclear": summary["left_out"],
            "passes from": summary["threshold"],
            "refused": shown_rate(summary["refused"]),
            "answers that could not be read": shown_rate(summary["unreadable"]),
        }
    )
    page.heading("How often it is right, and which way it leans")
    page.text(
        "With 95 % intervals: Wilson's, widened where several answers share a scene. Answers that are not there "
        "are left out, but for the strict accuracy."
    )
    page.table(("", "rate", "answers"), _rate_rows(summary["overall"]))
    page.heading("By kind of picture")
    page.text("Mean scores have bootstrap intervals over scenes.")
    _kinds(page, summary["kinds"])
    for title, groups in (("By family of scenes", summary["families"]), ("By edit", summary["edits"])):
        page.heading(title)
        page.table(("", *GROUP_COLUMNS.values()), [_group_row(name, group) for name, group in groups.items()])
    if summary["thresholds"]:
        _thresholds(page, summary["thresholds"])
    _mistakes(page, judgements, summary["threshold"], size_px)
    return page


def votes_page(
    summary: Mapping[str, Any], votes: Sequence[Vote], pairs: Mapping[str, Pair], names: Sequence[str]
) -> Page:
    """The page of a vote; `names` are those of A and B."""
    page = Page("Which edits do people prefer?")
    page.facts({"A": names[0], "B": names[1], "items": summary["items"], "votes": summary["votes"]})
    page.heading("Wins")
    page.text("With 95 % intervals: Wilson's, widened where several votes share an item.")
    page.table(WIN_COLUMNS, [win_row("all", summary["overall"]), *_voter_rows(summary)])
    page.heading("Sides")
    page.text("Of the votes that are no tie, how many chose the left picture: half of them, for who looks at both.")
    page.table(SIDE_COLUMNS, side_rows(summary))
    if summary["agreement"]["pairs"]:
        page.heading("Agreement")
        page.table(("", "same winner", "kappa"), agreement_rows(summary))
    for winner, title in zip(WINNERS, ("A preferred", "Tie", "B preferred"), strict=True):
        _preferred(page, title, winner, tallies(votes), pairs)
    return page


GROUP_COLUMNS = {
    "accuracy": "accuracy",
    "sensitivity": "true edits passed",
    "specificity": "spoiled edits not passed",
    "ranks_true_first": "true above spoiled",
    "copies_passed": "copies passed",
}
WIN_COLUMNS = ("", "A wins, a tie being half", "A wins, without ties", "A", "tie", "B", "votes")
SIDE_COLUMNS = ("voter", "left", "leans to", "median seconds")


def shown_rate(rate: Mapping[str, Any] | None) -> str:
    """A rate with its interval, as tables show it."""
    if rate is None:
        return "–"
    low, high = rate["interval"]
    return f"{rate['rate']:.0%} ({low:.0%} to {high:.0%})"


def win_row(name: str, group: Mapping[str, Any]) -> tuple[object, ...]:
    """A line of the table of wins."""
    rates = (group[key] for key in ("ties_as_half", "without_ties", *WINNERS))
    return (name, *map(shown_rate, rates), group["ties_as_half"]["answers"])


def side_rows(summary: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """The lines of the table of sides."""
    return [
        (voter, shown_rate(of["left"]), of["leans"] or "neither", of["median_seconds"])
        for voter, of in summary["voters"].items()
    ]


def agreement_rows(summary: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """The lines of the table of agreement: every two voters, then all by Krippendorff's alpha."""
    found = summary["agreement"]
    rows: list[tuple[object, ...]] = [
        (voters, shown_rate(of["same"]), of["kappa"]) for voters, of in found["pairs"].items()
    ]
    alpha = found["alpha"]
    if alpha is not None:
        low, high = alpha["interval"]
        rows.append(("all, Krippendorff's alpha", "", f"{alpha['alpha']:.2f} ({low:.2f} to {high:.2f})"))
    return rows


def _voter_rows(summary: Mapping[str, Any]) -> list[tuple[object, ...]]:
    voters = summary["voters"]
    return [win_row(voter, of) for voter, of in voters.items()] if len(voters) > 1 else []


def _rate_rows(rates: Mapping[str, Any]) -> list[tuple[object, ...]]:
    return [
        (words, shown_rate(rates[name]), None if rates[name] is None else rates[name]["answers"])
        for name, words in RATES.items()
    ]


def _group_row(name: str, rates: Mapping[str, Any]) -> tuple[object, ...]:
    return (name, *(shown_rate(rates[key]) for key in GROUP_COLUMNS))


def _kinds(page: Page, kinds: Mapping[str, Any]) -> None:
    criteria = list(dict.fromkeys(name for kind in kinds.values() for name in kind["criteria"]))
    apart = criteria if len(criteria) > 1 else []
    rows = []
    for kind, of in kinds.items():
        means = (None if of["score"] is None else of["criteria"].get(name) for name in apart)
        rows.append(
            (kind, _shown_mean(of["score"]), shown_rate(of["passed"]), *map(_shown_mean, means), of["pictures"])
        )
    page.table(("", "mean score", "passed", *apart, "pictures"), rows)


def _shown_mean(mean: Mapping[str, Any] | None) -> str:
    if mean is None:
        return "–"
    low, high = mean["interval"]
    return f"{mean['mean']:.2f} ({low:.2f} to {high:.2f})"


def _thresholds(page: Page, rows: Sequence[Mapping[str, float]]) -> None:
    best = max(rows, key=lambda row: row["accuracy"])
    page.heading("Other thresholds")
    page.text(
        f"On these pictures {best['threshold']:g} would be right most often ({best['accuracy']:.0%}). Chosen on them "
        "and measured on them, that is more than it would reach on others."
    )
    names = {"sensitivity": "true edits passed", "specificity": "spoiled edits not passed"}
    series = {words: [(row["threshold"], row[name]) for row in rows] for name, words in names.items()}
    page.plots([Plot("Passed and not, by threshold", series, x="threshold")])


def _mistakes(page: Page, judgements: Sequence[Judgement], threshold: float, size_px: int) -> None:
    page.heading("Where it errs")
    wrong = mistakes(judgements, threshold, SHOWN_MISTAKES)
    if not wrong:
        page.text("Nowhere: every answer is right.")
        return
    page.text("Input, edited picture and truth; the worst of each kind first.")
    page.pictures([(_mistake_sheet(j, size_px), _mistake_words(j)) for j in wrong], min_width_px=420)


def _mistake_sheet(judgement: Judgement, size_px: int) -> Image.Image:
    item = sample_item(judgement.seed, family=judgement.family, size=size_px)
    edited = edited_picture(item, judgement.kind)
    assert edited is not None  # what was judged can be drawn
    row = [Image.fromarray(pixels) for pixels in (item.input, edited, item.target)]
    return contact_sheet([row], columns=("input", judgement.kind, "truth"))


def _mistake_words(judgement: Judgement) -> str:
    said = judgement.reason[:SHOWN_REASON] + "…" * (len(judgement.reason) > SHOWN_REASON)
    return f"«{judgement.prompt}» {judgement.kind}, score {judgement.overall:.2f} [{judgement.seed}] {said}".strip()


def _preferred(
    page: Page, title: str, winner: str, tally: Mapping[str, Mapping[str, int]], pairs: Mapping[str, Pair]
) -> None:
    """The items on which that winner is furthest ahead."""
    ahead = {item: 2 * counts[winner] - sum(counts.values()) for item, counts in tally.items() if item in pairs}
    chosen = sorted((item for item, lead in ahead.items() if lead > 0), key=lambda item: -ahead[item])[:SHOWN_ITEMS]
    if not chosen:
        return
    page.heading(title)
    pictures = []
    for item in chosen:
        counts = ", ".join(f"{tally[item][name]} {name if name == 'tie' else name.upper()}" for name in WINNERS)
        pictures.append((_pair_sheet(pairs[item]), f"{pairs[item].prompt} [{item}] votes: {counts}".strip()))
    page.pictures(pictures, min_width_px=420)


def _pair_sheet(pair: Pair) -> Image.Image:
    row = [load_image(source) for source in (pair.input.read(), pair.a, pair.b)]
    for picture in row:
        picture.thumbnail((LARGEST_SHOWN_PX, LARGEST_SHOWN_PX))
    return contact_sheet([row], columns=("input", "A", "B"))


def write_page(page: Page, folder: Path) -> Path:
    """Write `report.html`, which is returned. Raises OutputError."""
    path = folder / "report.html"
    page.write(path)
    return path
