"""A small benchmark, its cases, editors and a model that answers by a function: for tests of what runs benchmarks."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chronoedit.data.records import FileBlob
from chronoedit.errors import VlmRefusal
from chronoedit.evaluation.bench_answers import judge_question
from chronoedit.evaluation.cases import Bench, Case, Judged, JudgeQuestion, Verdict
from chronoedit.evaluation.editors import EditFailed
from chronoedit.vlm.asking import OnText, Question, Turn, VisionModel

CRITERIA = {"done": "is it done", "kept": "is the rest kept"}
SIZE = 48


def figures(judged: Judged, lowest: float | None) -> dict[str, float]:
    """Means of the two criteria and of both; what is missing counts as `lowest`, or does not count."""
    rows = []
    for _, verdict in judged:
        scores = {name: verdict.scores.get(name, lowest) for name in CRITERIA}
        if None not in scores.values():
            rows.append([float(value) for value in scores.values() if value is not None])
    if not rows:
        return {"items": 0.0}
    means = np.mean(rows, axis=0)
    return {"overall": float(means.mean()), **dict(zip(CRITERIA, map(float, means), strict=True)), "items": len(rows)}


def questions(case: Case, before: Image.Image, edited: Image.Image) -> Sequence[JudgeQuestion]:
    return [judge_question("Judge.", f"Asked for: {case.prompt}", (before, edited), CRITERIA, (1.0, 5.0))]


def read(path: Path) -> Iterator[Case]:
    for number, words in enumerate(path.read_text().splitlines()):
        reference = path.parent / f"{number}-after.png"
        yield Case(
            key=f"part/{number}",
            prompt=words,
            image=FileBlob(path.parent / f"{number}.png"),
            category="human" if number % 2 else "robot",
            reference=FileBlob(reference) if reference.is_file() else None,
        )


BENCH = Bench(
    name="fake",
    source="nowhere",
    criteria=tuple(CRITERIA),
    scale=(1.0, 5.0),
    read=read,
    questions=questions,
    aggregate={"official": lambda judged: figures(judged, None), "strict": lambda judged: figures(judged, 1.0)},
)


def write_data(folder: Path, prompts: Sequence[str], *, references: bool = False) -> Path:
    """Grey pictures with a grain of their own; in the reference a square is bright."""
    for number in range(len(prompts)):
        pixels = np.random.default_rng(number).integers(90, 110, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        if references:
            pixels[8:20, 8:20] = 250
            Image.fromarray(pixels).save(folder / f"{number}-after.png")
    path = folder / "prompts.txt"
    path.write_text("\n".join(prompts))
    return path


@dataclass
class Painter:
    """Paints a square of a colour that follows from the seed; fails where the prompt says so."""

    name: str = "painter"
    identity: dict[str, Any] = field(default_factory=lambda: {"painter": 1})
    asked: list[tuple[str, int]] = field(default_factory=list)
    stops_after: int | None = None
    broken: bool = True

    def edit(self, case: Case, image: Image.Image, seed: int) -> Image.Image:
        if self.stops_after is not None and len(self.asked) >= self.stops_after:
            raise KeyboardInterrupt
        self.asked.append((case.key, seed))
        if self.broken and "fail" in case.prompt:
            raise EditFailed("it was to fail")
        edited = image.copy()
        edited.paste((250, 250 - 60 * seed, 250), (8, 8, 20, 20))
        return edited


@dataclass
class Scripted(VisionModel):
    """A model whose answer to a conversation is `answer(turns, question)`; None refuses."""

    answer: Callable[[list[Turn], Question], str | None] = lambda turns, question: scores(3, 3)
    threads: set[int] = field(default_factory=set)

    def _reply(self, turns: list[Turn], question: Question, on_text: OnText | None) -> str:
        self.threads.add(threading.get_ident())
        text = self.answer(turns, question)
        if text is None:
            raise VlmRefusal("I will not look at this")
        return text


def scores(done: int, kept: int, reason: str = "so it looks") -> str:
    return json.dumps({"reason": reason, "done": done, "kept": kept})


def words_of(turns: Sequence[Turn]) -> str:
    """What was asked for, as `questions` puts it."""
    return re.findall(r"Asked for: (.*)", turns[1].text)[0]


@dataclass
class Brightness:
    """A judge that needs no model: bright edits are well done."""

    name: str = "brightness"
    seen: list[str] = field(default_factory=list)
    shift: float = 0.0

    def score(self, case: Case, edited: Image.Image) -> Verdict:
        self.seen.append(case.key)
        if "unread" in case.prompt:
            return Verdict(scores={}, problem="It cannot be read.")
        if "refuse" in case.prompt:
            return Verdict(scores={}, problem="It refuses.", refused=True)
        brightest = float(np.asarray(edited.convert("L")).max())
        score = 1 + 4 * (brightest - 90) / 165 + self.shift
        return Verdict(scores={"done": min(5.0, max(1.0, score)), "kept": 3.0}, reason=f"brightest {brightest:g}")
