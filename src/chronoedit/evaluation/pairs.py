"""Which of two edits is better, asked in both orders: a judge that goes by the order contradicts itself, and is caught.

A preference counts when both orders agree on it; all else is a tie. In the folder: `run.json` says which runs are
compared, `pairs.jsonl` has one line a pair of pictures, written when it is judged, and `summary.json` comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from chronoedit.errors import VlmRefusal
from chronoedit.ledger import Ledger, claim
from chronoedit.media import load_image
from chronoedit.vlm.asking import Question, VisionModel
from chronoedit.vlm.concurrency import in_parallel

from .bench_run import EDITOR, Edit, read_edits, read_run
from .run import write_json
from .statistics import bootstrap_mean

CHOICES = ("first", "second", "tie")
SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "better": {"type": "string", "enum": list(CHOICES)}},
    "required": ["reason", "better"],
    "additionalProperties": False,
}
INSTRUCTIONS = """You compare two edits of one picture. You see three pictures: the original, then the first edit, then
the second edit; and the request that both were to carry out.

Look for three things, in this order: whether what was asked for is there, done as it would be in the real world;
whether everything else (people, objects, background, style, camera) is still as it was; and whether the picture is free
of damage. An edit that leaves the original as it is has not carried out the request. The order in which the edits are
shown means nothing.

Say in one or two sentences what decides it, then choose: "first", "second", or "tie" where neither is clearly
better."""


@dataclass(frozen=True, kw_only=True)
class Preference:
    """What a judge prefers of A and B, asked twice: `forward` with A shown first, `backward` with B.

    Both are "first", "second" or "tie", or None where the answer could not be read or the judge refused, which
    `problem` then says.
    """

    forward: str | None
    backward: str | None
    reasons: tuple[str, str] = ("", "")
    problem: str | None = None
    refused: bool = False

    @property
    def winner(self) -> str | None:
        """ "a" or "b" where both orders agree on it, else "tie"; None where an answer is missing."""
        if self.forward is None or self.backward is None:
            return None
        return {("first", "second"): "a", ("second", "first"): "b"}.get((self.forward, self.backward), "tie")

    @property
    def contradicts(self) -> bool:
        """Whether both orders chose the same place, whoever stood there."""
        return self.forward == self.backward and self.forward in ("first", "second")


def prefer(model: VisionModel, prompt: str, before: Image.Image, a: Image.Image, b: Image.Image) -> Preference:
    """Ask in both orders which of two edits of `before` is better. Raises VlmError when the model cannot be asked."""
    chosen: list[str | None] = []
    reasons, problems, refused = [], [], False
    for first, second in ((a, b), (b, a)):
        try:
            answer = model.ask(pair_question(prompt, before, first, second))
        except VlmRefusal as refusal:
            chosen.append(None)
            reasons.append("")
            problems.append(str(refusal))
            refused = True
            continue
        chosen.append(answer.value["better"] if answer.problem is None else None)
        reasons.append(answer.value["reason"] if answer.problem is None else answer.text)
        problems += [answer.problem] if answer.problem is not None else []
    return Preference(
        forward=chosen[0],
        backward=chosen[1],
        reasons=(reasons[0], reasons[1]),
        problem=" ".join(problems) or None,
        refused=refused,
    )


def pair_question(prompt: str, before: Image.Image, first: Image.Image, second: Image.Image) -> Question:
    """What is asked about one order of two edits."""
    return Question(
        instructions=INSTRUCTIONS, text=f"The request: {prompt}", images=(before, first, second), schema=SCHEMA
    )


def run_pairs(
    model: VisionModel,
    runs: tuple[Path, Path],
    folder: Path,
    *,
    workers: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Ask about the pairs that `folder` lacks, and write the summary, which is returned.

    Each case and repeat that both runs have is a pair; where one run has no picture, the other wins without a question.
    Raises ValueError when the runs have nothing in common, OutputError when the folder holds another comparison or
    cannot be written, VlmError when the model cannot be asked.
    """
    edits = read_edits(runs[0]), read_edits(runs[1])
    wanted = _pairs(*edits)
    if not wanted:
        raise ValueError(f"{runs[0]} and {runs[1]} have no item in common; run both on the same data")
    _claim(folder, runs, model)
    ledger = Ledger(folder / "pairs.jsonl")
    left = [pair for pair in wanted if pair[0].key not in ledger]
    done = len(wanted) - len(left)
    for (a, b), preference in in_parallel(partial(_judged, model, runs), left, workers):
        ledger.append(a.key, _record(a, b, preference))
        done += 1
        if report is not None:
            report(done, len(wanted))
    records = [ledger.get(a.key) for a, _ in wanted]
    summary = {
        "judge": model.name,
        "a": str(runs[0]),
        "b": str(runs[1]),
        **summarise_pairs([record for record in records if record is not None]),
    }
    write_json(folder / "summary.json", summary)
    return summary


def read_pairs(folder: Path) -> list[dict[str, Any]]:
    """The pairs judged so far, in their order. Raises OutputError for a damaged record."""
    return Ledger(folder / "pairs.jsonl").records()


def summarise_pairs(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Wins, ties and what went wrong, and how often A is preferred (a tie is half), overall and by category.

    `order` is the share of "first" among all choices of a place, less a half: 0 for a judge that does not go by order.
    Raises ValueError without records.
    """
    if not records:
        raise ValueError("there is nothing to summarise: no pair is judged; give two runs of the same data")
    categories = sorted({record["category"] for record in records} - {""})
    groups = {name: [record for record in records if record["category"] == name] for name in categories}
    return {
        "pairs": len(records),
        "wins_a": _count(records, "a"),
        "wins_b": _count(records, "b"),
        "ties": _count(records, "tie"),
        "contradictions": sum(record["contradicts"] for record in records),
        "refused": sum(record["refused"] for record in records),
        "unread": sum(record["winner"] is None and not record["refused"] for record in records),
        "a_preferred": {"overall": _preferred(records), **{name: _preferred(group) for name, group in groups.items()}},
        "order": _order(records),
    }


def _pairs(a: Mapping[str, Edit], b: Mapping[str, Edit]) -> list[tuple[Edit, Edit]]:
    """The edits that both runs have, where at least one has a picture. Raises ValueError for other requests."""
    common = [(a[key], b[key]) for key in a if key in b and a[key].row == EDITOR]
    different = next((x for x, y in common if x.prompt != y.prompt), None)
    if different is not None:
        raise ValueError(f"the two runs ask for other things at item {different.case}; give two runs of the same data")
    return [(x, y) for x, y in common if x.image or y.image]


def _judged(model: VisionModel, runs: tuple[Path, Path], pair: tuple[Edit, Edit]) -> Preference:
    a, b = pair
    if a.image is None or b.image is None:
        won, lost = ("first", "second") if b.image is None else ("second", "first")
        return Preference(forward=won, backward=lost, reasons=("There is no other picture.",) * 2)
    before = load_image(runs[0] / str(a.input))
    return prefer(model, a.prompt, before, load_image(runs[0] / a.image), load_image(runs[1] / b.image))


def _record(a: Edit, b: Edit, preference: Preference) -> dict[str, Any]:
    return {
        "case": a.case,
        "category": a.category,
        "prompt": a.prompt,
        "repeat": a.repeat,
        "input": a.input,
        "a": a.image,
        "b": b.image,
        **asdict(preference),
        "winner": preference.winner,
        "contradicts": preference.contradicts,
        "asked": a.image is not None and b.image is not None,
    }


def _claim(folder: Path, runs: tuple[Path, Path], model: VisionModel) -> None:
    """Write `run.json`, or check that it is of the same comparison."""
    identity = {
        "a": {"path": str(runs[0].resolve()), **read_run(runs[0])},
        "b": {"path": str(runs[1].resolve()), **read_run(runs[1])},
        "judge": [model.name, model.revision],
    }
    claim(folder / "run.json", identity, "another comparison")


def _count(records: Sequence[Mapping[str, Any]], winner: str) -> int:
    return sum(record["winner"] == winner for record in records)


def _preferred(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How often A wins, a tie being half a win; repeats of a case are averaged first. None without any answer."""
    by_case: dict[str, list[float]] = {}
    for record in records:
        if record["winner"] is not None:
            by_case.setdefault(record["case"], []).append({"a": 1.0, "b": 0.0, "tie": 0.5}[record["winner"]])
    if not by_case:
        return None
    return bootstrap_mean([sum(values) / len(values) for values in by_case.values()]).to_json()


def _order(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How far the share of "first" among the places chosen lies above a half, over pairs; None without a choice."""
    places = [
        [float(choice == "first") for choice in (record["forward"], record["backward"]) if choice in CHOICES[:2]]
        for record in records
        if record["asked"]
    ]
    shares = [sum(chosen) / len(chosen) - 0.5 for chosen in places if chosen]
    return bootstrap_mean(shares).to_json() if shares else None
