"""A pair is put into words in stages, and each answer is held against what is known."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from chronoedit.data.label import KINDS, Labeller, LabelSettings
from chronoedit.data.label_checks import (
    changed_shares,
    essence,
    instruction_problem,
    is_no_change,
    pixel_problem,
    reads_as_english,
)
from chronoedit.data.records import Record
from chronoedit.errors import VlmError, VlmRefusal
from chronoedit.vlm.asking import Question, Turn
from chronoedit.vlm.checks import enhanced_prompt_problem
from chronoedit.vlm.labels import BACKWARD, DIRECTION, FORWARD, INSTRUCTION, REASONING, UNCLEAR, direction_problem

from .conftest import pair
from .scripted import CAPTION, PARAGRAPH, Scripted, good

BEFORE, AFTER = (Image.fromarray(pixels) for pixels in pair(0))


def answering(**answers: str) -> Callable[[Question, list[Turn]], str]:
    named = {INSTRUCTION: "instruction", DIRECTION: "direction", REASONING: "reasoning"}
    return lambda question, turns: answers.get(named[question.instructions]) or good(question, turns)


def test_two_stages_and_the_direction() -> None:
    model = Scripted()
    label = Labeller(model=model).label_pair(BEFORE, AFTER)
    assert (label.caption, label.caption_cot, label.problem) == (CAPTION, PARAGRAPH, None)
    assert enhanced_prompt_problem(PARAGRAPH, CAPTION) is None
    assert model.kinds() == ["instruction", "direction", "reasoning"]
    assert label.checks["direction"] == "right" and 0.1 < label.checks["changed"] < 0.3
    instruction, direction, reasoning = model.asked
    assert instruction.images == reasoning.images == (BEFORE, AFTER)
    assert direction.images == (AFTER, BEFORE)  # exchanged
    assert all(CAPTION in question.text for question in (direction, reasoning))


def test_settings_reach_the_questions() -> None:
    model = Scripted()
    settings = LabelSettings(verify_direction=False, reasoning=False, shortest_side_px=32, seed=7)
    assert Labeller(model=model, settings=settings).label_pair(BEFORE, AFTER).caption_cot is None
    assert model.kinds() == ["instruction"]
    assert (model.asked[0].shortest_side_px, model.asked[0].seed) == (32, 7)
    with pytest.raises(ValueError, match="shortest side of 8 px; give 16"):
        LabelSettings(shortest_side_px=8)


def test_upgrade_keeps_captions() -> None:
    model = Scripted()
    labeller = Labeller(model=model, settings=LabelSettings(upgrade=True))
    label = labeller.label_pair(BEFORE, AFTER, " paint the patch red ")
    assert (label.caption, label.caption_cot) == ("paint the patch red", PARAGRAPH)
    assert model.kinds() == ["direction", "reasoning"]
    problem = labeller.label_pair(BEFORE, AFTER).problem
    assert problem is not None and problem.kind == "caption"
    with pytest.raises(ValueError, match="asks for the reasoning prompt"):
        LabelSettings(upgrade=True, reasoning=False)


@pytest.mark.parametrize(
    ("answers", "kind", "message"),
    [
        ({"instruction": "Ein Mann mit der Katze und dem Hund"}, "instruction", "in English"),
        ({"instruction": "I'm sorry, but I can't help with that."}, "refused", "must be an instruction"),
        ({"instruction": "no change"}, "pixels", 'says "no change", but .* of the pixels differ'),
        ({"direction": FORWARD}, "direction", "true of that order"),
        ({"direction": "yes"}, "direction", "must be one of"),
        ({"reasoning": "A red square."}, "reasoning", "must begin with"),
    ],
)
def test_problems_are_named(answers: dict[str, str], kind: str, message: str) -> None:
    label = Labeller(model=Scripted(script=answering(**answers))).label_pair(BEFORE, AFTER)
    assert label.problem is not None and label.problem.kind == kind in KINDS
    assert re.search(message, label.problem.message)


def test_an_unclear_direction_is_kept_and_noted() -> None:
    label = Labeller(model=Scripted(script=answering(direction=UNCLEAR))).label_pair(BEFORE, AFTER)
    assert label.problem is None and label.checks["direction"] == "unclear"


def test_a_wrong_answer_is_repaired() -> None:
    def script(question: Question, turns: list[Turn]) -> str:
        if question.instructions == INSTRUCTION and len(turns) == 2:
            return "a; b; c; d"
        return good(question, turns)

    model = Scripted(script=script)
    assert Labeller(model=model).label_pair(BEFORE, AFTER).caption == CAPTION
    assert model.kinds().count("instruction") == 2


def test_nothing_changed() -> None:
    model = Scripted(script=answering(instruction="No change."))
    label = Labeller(model=model).label_pair(BEFORE, BEFORE)
    assert label.caption == "no change" and label.unchanged and label.caption_cot is None
    assert model.kinds() == ["instruction"]  # there is nothing more to ask
    problem = Labeller(model=Scripted()).label_pair(BEFORE, BEFORE).problem
    assert problem is not None and problem.message == "it names a change, but the pictures are the same"


@pytest.mark.parametrize(("error", "kind"), [(VlmRefusal("it will not"), "refused"), (VlmError("gone"), "unanswered")])
def test_models_that_do_not_answer(error: VlmError, kind: str) -> None:
    def script(question: Question, turns: list[Turn]) -> str:
        raise error

    problem = Labeller(model=Scripted(script=script)).label_pair(BEFORE, AFTER).problem
    assert problem is not None and (problem.kind, problem.message) == (kind, str(error))


def test_pictures_that_cannot_be_read() -> None:
    model = Scripted()
    problem = Labeller(model=model).label(Record(row="set.csv:2", key="k")).problem
    assert problem is not None and problem.kind == "broken" and not problem.message.startswith("set.csv")
    assert model.asked == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("turn the ball red", None),
        ("remove hat", None),
        ("add red van", None),
        ("replace blue sedan parked near curb with red vintage convertible facing left", None),
        ("kırmızı topu masanın sol tarafından sağ tarafa doğru yavaşça it", "English"),
        ("przesuń czerwoną piłkę z lewej strony stołu w prawo", "English"),
        ('write "für Elise" on the sheet of paper', None),
        ("no change", None),
        ("", "empty"),
        ("turn the ball red; lift the cup; open the door; close the window", "4 changes"),
        ("turn the ball red;; lift the cup; ", None),
        ("turn the ball " + "very " * 200 + "red", "203 words|204 words"),
        ("turn the ball red\nlift the cup", "one line"),
        ("make a beautiful, stunning sunset over the sea", "leave out beautiful, stunning"),
        ("将球变成红色", "English"),
        ("la pelota roja se mueve con el cubo", "English"),
        ("As an AI model I cannot see pictures", "instruction"),
    ],
)
def test_the_form_of_instructions(text: str, problem: str | None) -> None:
    found = instruction_problem(text)
    assert (found is None) if problem is None else (found is not None and re.search(problem, found))


def test_small_checks() -> None:
    assert is_no_change(' "No change." ') and not is_no_change("no changes to the hat; move the cup")
    assert reads_as_english("put a hat on the man") and not reads_as_english("123")
    assert direction_problem(f" {BACKWARD.title()}. ") is None and direction_problem("both") is not None
    assert essence("Turn the ball red; lift a cup.") == essence("lift the cup; turn ball red")
    assert essence("move it from left to right") != essence("move it from right to left")
    assert essence("turn the ball red") != essence("turn the ball blue")


def test_pixels_and_light() -> None:
    pixels = np.asarray(BEFORE).astype(float)
    darker = Image.fromarray((pixels * 0.6).astype(np.uint8))
    noisy = Image.fromarray(
        (pixels + np.random.default_rng(0).normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)
    )
    assert changed_shares(BEFORE, BEFORE) == changed_shares(BEFORE, noisy) == (0, 0)
    changed, but_light = changed_shares(BEFORE, darker)
    assert changed > 0.5 and but_light == 0
    large = BEFORE.resize((480, 480), Image.Resampling.BICUBIC)
    assert changed_shares(BEFORE, AFTER)[0] == pytest.approx(20 * 20 / 48**2, abs=0.03)
    assert changed_shares(large, AFTER)[0] > 0.1  # the second is brought to the first one's size
    assert pixel_problem("no change", 0.6, 0.0) is None
    assert pixel_problem("make it night", 0.6, 0.0) is None
