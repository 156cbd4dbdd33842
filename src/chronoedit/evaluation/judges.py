"""Judges of edited pictures: `score(case, edited) -> Verdict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import PIL.Image

from chronoedit.errors import VlmRefusal
from chronoedit.media import load_image
from chronoedit.vlm.asking import VisionModel

from .bench_answers import reason_from
from .cases import Bench, Case, Judge, JudgeQuestion, Verdict
from .colour import delta_e, srgb_to_lab

REASON_CHARACTERS = 2000


@dataclass(kw_only=True)
class VlmJudge:
    """Asks a vision-language model the benchmark's questions, with `seed` as theirs.

    An answer that cannot be read is sent back with what is wrong, up to `repairs` times. What stays unread, or is
    refused, is in the verdict's `problem`; the scores of the other questions are kept. Raises VlmError when the model
    cannot be asked at all.
    """

    bench: Bench
    model: VisionModel
    seed: int = 0
    repairs: int = 2
    name: str = field(init=False)

    def __post_init__(self) -> None:
        revision = "" if self.model.revision is None else f"@{self.model.revision}"
        self.name = f"vlm:{self.model.name}{revision}"

    def score(self, case: Case, edited: PIL.Image.Image) -> Verdict:
        scores: dict[str, float] = {}
        reasons, problems, refused = [], [], False
        for asked in self.bench.questions(case, input_of(case), edited):
            try:
                text, problem = self._answer(asked)
            except VlmRefusal as refusal:
                problems.append(str(refusal))
                refused = True
                continue
            reasons.append(reason_from(text)[:REASON_CHARACTERS])
            if problem is None:
                scores |= asked.parse(text)
            else:
                problems.append(problem)
        return Verdict(scores=scores, reason="\n\n".join(reasons), problem=" ".join(problems) or None, refused=refused)

    def _answer(self, asked: JudgeQuestion) -> tuple[str, str | None]:
        """The answer and what keeps its scores from being read; one of another form than asked for may still do."""
        read = problem_of(asked)
        answer = self.model.ask(replace(asked.question, seed=self.seed), read, self.repairs)
        return answer.text, None if answer.problem is None else read(answer.text)


@dataclass(kw_only=True)
class ReferenceJudge:
    """Needs no model: how far the edited picture has come from the input to the reference, on the benchmark's scale.

    The mean ΔE to the reference, over that of the input: the input itself has the lowest score, the reference the
    highest, and what is further off than the input the lowest. Every criterion has the same score. A case without a
    reference, or whose reference is the input, cannot be scored.
    """

    bench: Bench
    seed: int = 0
    name: str = "reference"

    def score(self, case: Case, edited: PIL.Image.Image) -> Verdict:
        if case.reference is None:
            return Verdict(scores={}, problem="The case has no reference picture.")
        reference = load_image(case.reference.read())
        labs = [_lab(picture, reference.size) for picture in (input_of(case), edited, reference)]
        whole, left = (float(delta_e(lab, labs[2]).mean()) for lab in labs[:2])
        if whole == 0:
            return Verdict(scores={}, problem="The reference picture is the input itself.")
        share = max(0.0, 1 - left / whole)
        low, high = self.bench.scale
        score = low + (high - low) * share
        return Verdict(
            scores=dict.fromkeys(self.bench.criteria, score), reason=f"{share:.0%} of the way to the reference"
        )


def _vlm(bench: Bench, model: VisionModel | None, seed: int) -> Judge:
    if model is None:
        raise ValueError("the judge 'vlm' needs a vision-language model; name one with --vlm-url and --vlm-model")
    return VlmJudge(bench=bench, model=model, seed=seed)


def _reference(bench: Bench, model: VisionModel | None, seed: int) -> Judge:
    return ReferenceJudge(bench=bench, seed=seed)


JUDGES: Mapping[str, Callable[[Bench, VisionModel | None, int], Judge]] = {"vlm": _vlm, "reference": _reference}
"""Judges by name, each made for a benchmark, with the model that it asks, if it asks one, and a seed."""


def open_judge(name: str, bench: Bench, model: VisionModel | None = None, seed: int = 0) -> Judge:
    """The judge of that name. Raises ValueError when there is none, or when it needs a model and has none."""
    if name not in JUDGES:
        raise ValueError(f"there is no judge {name!r}; choose from {', '.join(JUDGES)}")
    return JUDGES[name](bench, model, seed)


def problem_of(asked: JudgeQuestion) -> Callable[[str], str | None]:
    """The check of an answer: what keeps its scores from being read, as a sentence."""

    def problem(text: str) -> str | None:
        try:
            asked.parse(text)
        except ValueError as error:
            return f"It cannot be read: {error}."
        return None

    return problem


def input_of(case: Case) -> PIL.Image.Image:
    """The picture that is to be edited. Raises DataError and ImageError."""
    return load_image(case.image.read())


def _lab(picture: PIL.Image.Image, size: tuple[int, int]) -> np.ndarray:
    picture = picture.convert("RGB")
    return srgb_to_lab(
        np.asarray(picture if picture.size == size else picture.resize(size, PIL.Image.Resampling.LANCZOS))
    )
