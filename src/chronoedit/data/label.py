"""Words for a pair of pictures: what one row is asked, in which order, and what becomes of the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image

from chronoedit.data.label_checks import changed_shares, instruction_problem, is_no_change, is_refusal, pixel_problem
from chronoedit.data.records import Record, frames
from chronoedit.errors import DataError, VlmError, VlmRefusal
from chronoedit.vlm.asking import SHORTEST_SIDE_PX, Answer, Question, VisionModel
from chronoedit.vlm.checks import enhanced_prompt_problem
from chronoedit.vlm.labels import (
    BACKWARD,
    FORWARD,
    NO_CHANGE,
    direction_in,
    direction_problem,
    direction_question,
    instruction_question,
    reasoning_question,
)

KINDS = {
    "broken": "its pictures cannot be read",
    "caption": "there is no caption to upgrade",
    "refused": "the model declined",
    "unanswered": "the model could not be asked",
    "instruction": "no instruction of the form asked for",
    "pixels": "the pictures contradict the instruction",
    "direction": "the instruction seems to run the other way",
    "reasoning": "no reasoning prompt of the form asked for",
}
"""What keeps a row from being trained on."""


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """What is asked about each pair.

    `upgrade` keeps the captions that the set has, and asks for no instruction. `reasoning` asks for the reasoning
    prompt. `verify_direction` asks once more, with the pictures exchanged, which of them the instruction starts from.
    """

    upgrade: bool = False
    reasoning: bool = True
    verify_direction: bool = True
    shortest_side_px: int = SHORTEST_SIDE_PX
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shortest_side_px < 16:
            raise ValueError(f"a shortest side of {self.shortest_side_px} px; give 16 or more (1080 is usual)")
        if self.upgrade and not self.reasoning:
            raise ValueError("an upgrade keeps the captions and asks for the reasoning prompt, which is turned off")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a row cannot be trained on; `kind` is one of KINDS."""

    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Label:
    """What was found out about a row: the instruction, the reasoning prompt, what the checks saw, what is wrong.

    A label without a problem has an instruction, and unless that is "no change" a reasoning prompt if one was asked.
    """

    caption: str | None = None
    caption_cot: str | None = None
    checks: dict[str, Any] = field(default_factory=dict)
    problem: Problem | None = None

    @property
    def unchanged(self) -> bool:
        """Whether it says that nothing changed."""
        return self.problem is None and self.caption is not None and is_no_change(self.caption)

    def to_json(self) -> dict[str, Any]:
        """As a line of labels.jsonl has it."""
        return asdict(self)


class Found(Exception):
    """A problem, on its way out of the questions of one row."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(kind=kind, message=message)


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """Asks a model about pairs, one at a time; several threads may share it."""

    model: VisionModel
    settings: LabelSettings = LabelSettings()

    def label(self, record: Record) -> Label:
        """The label of a row; whatever is wrong with it or its answers is in the label, and nothing is raised."""
        try:
            before, after = first_and_last(record)
        except DataError as error:
            return Label(problem=Problem(kind="broken", message=str(error).removeprefix(f"{record.row}: ")))
        return self.label_pair(before, after, record.prompt)

    def label_pair(self, before: Image.Image, after: Image.Image, caption: str = "") -> Label:
        """The label of two pictures; `caption` is the one they have, for an upgrade."""
        steps = _Steps(self.model, self.settings, before, after)
        try:
            steps.run(caption)
        except Found as found:
            steps.problem = found.problem
        return Label(caption=steps.caption, caption_cot=steps.reasoning, checks=steps.checks, problem=steps.problem)


@dataclass
class _Steps:
    """The questions about one pair, and what they have brought so far."""

    model: VisionModel
    settings: LabelSettings
    before: Image.Image
    after: Image.Image
    caption: str | None = None
    reasoning: str | None = None
    checks: dict[str, Any] = field(default_factory=dict)
    problem: Problem | None = None

    def run(self, caption: str) -> None:
        """Ask what there is to ask, and stop at the first problem. Raises Found."""
        self.caption = self._kept(caption) if self.settings.upgrade else self._instruction()
        self._compare_pixels(self.caption)
        if is_no_change(self.caption):
            return
        if self.settings.verify_direction:
            self._verify_direction(self.caption)
        if self.settings.reasoning:
            self.reasoning = self._reasoning(self.caption)

    def _kept(self, caption: str) -> str:
        if not caption.strip():
            raise Found("caption", "it has no caption; give it one, or label the set without --upgrade")
        return caption.strip()

    def _instruction(self) -> str:
        question = instruction_question(self.before, self.after, self.settings.shortest_side_px, self.settings.seed)
        answer = self._ask("instruction", question, instruction_problem)
        return NO_CHANGE if is_no_change(answer) else answer

    def _compare_pixels(self, caption: str) -> None:
        changed, but_light = changed_shares(self.before, self.after)
        self.checks |= {"changed": round(changed, 4), "changed_but_light": round(but_light, 4)}
        problem = pixel_problem(caption, changed, but_light)
        if problem is not None:
            raise Found("pixels", problem)

    def _verify_direction(self, caption: str) -> None:
        """The pictures are exchanged, so that a model that always says "first to second" is found out."""
        question = direction_question(
            self.after, self.before, caption, self.settings.shortest_side_px, self.settings.seed
        )
        direction = direction_in(self._ask("direction", question, direction_problem))
        self.checks["direction"] = {BACKWARD: "right", FORWARD: "reversed"}.get(direction or "", "unclear")
        if direction == FORWARD:
            raise Found("direction", "asked again with the pictures exchanged, the model finds it true of that order")

    def _reasoning(self, caption: str) -> str:
        question = reasoning_question(
            self.before, self.after, caption, self.settings.shortest_side_px, self.settings.seed
        )
        return self._ask("reasoning", question, lambda answer: enhanced_prompt_problem(answer, caption))

    def _ask(self, kind: str, question: Question, problem_of: Callable[[str], str | None]) -> str:
        try:
            answer: Answer = self.model.ask(question, problem_of)
        except VlmRefusal as error:
            raise Found("refused", str(error)) from error
        except VlmError as error:
            raise Found("unanswered", str(error)) from error
        text = answer.text.strip()
        if answer.problem is not None:
            self.checks[f"wrong_{kind}"] = text
            raise Found("refused" if is_refusal(text) else kind, answer.problem)
        return text


def first_and_last(record: Record) -> tuple[Image.Image, Image.Image]:
    """The pictures before and after: of a clip its first and last frame. Raises DataError, naming the row."""
    video = frames(record)
    return Image.fromarray(video[0]), Image.fromarray(video[-1])
