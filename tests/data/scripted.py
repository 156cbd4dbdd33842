"""A vision-language model in this process that answers by a script, and sets of pictures for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from chronoedit.data.records import FileBlob, Record
from chronoedit.vlm.asking import Question, Turn, VisionModel
from chronoedit.vlm.labels import BACKWARD, DIRECTION, INSTRUCTION, REASONING

from .conftest import pair, write_table

CAPTION = "turn the square in the middle red"
PARAGRAPH = (
    "The user wants to have the square patch in the middle of the picture turned into a plain red one, with its edges "
    "where they are. A brush comes in from the right, touches the upper left corner of the patch, and moves along it "
    "line by line until the whole of it has the new colour. In the end the patch is red from edge to edge, and the "
    "brush is gone. Everything around the patch, its soft colours, their places, the light and the camera stay exactly "
    "as they are."
)


def good(question: Question, turns: list[Turn]) -> str:
    """What a model answers that does as it is told."""
    return {INSTRUCTION: CAPTION, DIRECTION: BACKWARD, REASONING: PARAGRAPH}[question.instructions]


@dataclass(kw_only=True)
class Scripted(VisionModel):
    """Answers by a function of the question and the turns so far; remembers what it was asked."""

    name: str = "scripted"
    script: Callable[[Question, list[Turn]], str] = good
    remembers: bool = True
    asked: list[Question] = field(default_factory=list)

    def _reply(self, turns: list[Turn], question: Question, on_text: object = None) -> str:
        if self.remembers:
            self.asked.append(question)
        return self.script(question, turns)

    def kinds(self) -> list[str]:
        """The sorts of questions that were asked."""
        names = {INSTRUCTION: "instruction", DIRECTION: "direction", REASONING: "reasoning"}
        return [names[question.instructions] for question in self.asked]


def endless(folder: Path, count: int) -> Iterator[Record]:
    """Many records of the same two small pictures."""
    before = np.zeros((16, 16, 3), np.uint8)
    after = before.copy()
    after[4:12, 4:12] = (200, 30, 30)
    paths = [folder / "before.png", folder / "after.png"]
    for path, pixels in zip(paths, (before, after), strict=True):
        Image.fromarray(pixels).save(path)
    for k in range(count):
        yield Record(row=f"made:{k}", key=f"key-{k}", before=FileBlob(paths[0]), after=FileBlob(paths[1]))


def table_of_pairs(folder: Path, count: int, **columns: str) -> Path:
    """A table of `count` pairs without captions, whose pictures are the same few files."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(2):
        for name, pixels in zip(("in", "out"), pair(index), strict=True):
            Image.fromarray(pixels).save(folder / f"{name}{index}.png")
    rows = [
        {"key": f"k{k}", "input_image": f"in{k % 2}.png", "image": f"out{k % 2}.png", **columns} for k in range(count)
    ]
    write_table(folder / "set.csv", rows)
    return folder / "set.csv"
