"""Judges: what a model says becomes a verdict, whatever it says; a reference needs no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.errors import VlmError
from chronoedit.evaluation.cases import Case
from chronoedit.evaluation.judges import JUDGES, input_of, open_judge
from chronoedit.vlm.asking import Question, Turn

from .bench_fakes import BENCH, Scripted, scores, write_data

EDITED = Image.new("RGB", (48, 48), "white")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return next(iter(BENCH.read(write_data(tmp_path, ["turn it"], references=True))))


def test_a_verdict(case: Case) -> None:
    asked: list[Question] = []

    def answer(turns: list[Turn], question: Question) -> str:
        asked.append(question)
        return scores(4, 2, "the ball is blue")

    judge = open_judge("vlm", BENCH, Scripted(name="m", revision="r", answer=answer), 3)
    verdict = judge.score(case, EDITED)
    assert dict(verdict.scores) == {"done": 4, "kept": 2} and verdict.reason == "the ball is blue"
    assert verdict.problem is None and not verdict.refused
    assert judge.name == "vlm:m@r" and asked[0].seed == 3
    assert [image.size for image in asked[0].images] == [input_of(case).size, EDITED.size]


def test_an_answer_that_cannot_be_read_is_asked_again(case: Case) -> None:
    answers = iter(["I think it is fine", scores(9, 1), scores(5, 1)])
    model = Scripted(name="m", answer=lambda turns, question: next(answers))
    verdict = open_judge("vlm", BENCH, model).score(case, EDITED)
    assert dict(verdict.scores) == {"done": 5, "kept": 1} and verdict.problem is None and model.sent == 3


def test_what_stays_unread_is_a_problem(case: Case) -> None:
    model = Scripted(name="m", answer=lambda turns, question: "I think it is fine")
    verdict = open_judge("vlm", BENCH, model).score(case, EDITED)
    assert dict(verdict.scores) == {} and verdict.problem is not None and "cannot be read" in verdict.problem
    assert verdict.reason == "I think it is fine" and not verdict.refused and model.sent == 3


def test_scores_in_words_will_do_after_all(case: Case) -> None:
    model = Scripted(name="m", answer=lambda turns, question: "done: 4/5\nkept: 2/5")
    verdict = open_judge("vlm", BENCH, model).score(case, EDITED)
    assert dict(verdict.scores) == {"done": 4, "kept": 2} and verdict.problem is None


def test_a_refusal_is_told_apart(case: Case) -> None:
    verdict = open_judge("vlm", BENCH, Scripted(name="m", answer=lambda turns, question: None)).score(case, EDITED)
    assert verdict.refused and dict(verdict.scores) == {} and verdict.problem == "I will not look at this"


def test_a_model_that_cannot_be_asked_is_an_error(case: Case) -> None:
    model = Scripted(name="m", max_requests=1)
    judge = open_judge("vlm", BENCH, model)
    judge.score(case, EDITED)
    with pytest.raises(VlmError, match="budget"):
        judge.score(case, EDITED)


def test_the_way_to_the_reference(case: Case) -> None:
    judge = open_judge("reference", BENCH)
    assert case.reference is not None
    before, after = input_of(case), Image.open(case.reference.name)
    half = Image.fromarray(((np.asarray(before).astype(int) + np.asarray(after)) // 2).astype(np.uint8))
    found = [judge.score(case, picture).scores["done"] for picture in (before, half, after, EDITED)]
    assert found[0] == 1 and found[2] == 5 and found[3] == 1
    assert 2.5 < found[1] < 3.5
    assert judge.score(case, after).scores.keys() == set(BENCH.criteria)


def test_without_a_reference_there_is_no_way(tmp_path: Path) -> None:
    case = next(iter(BENCH.read(write_data(tmp_path, ["turn it"]))))
    verdict = open_judge("reference", BENCH).score(case, EDITED)
    assert dict(verdict.scores) == {} and verdict.problem == "The case has no reference picture."
    input_of(case).save(tmp_path / "0-after.png")
    same = next(iter(BENCH.read(tmp_path / "prompts.txt")))
    assert open_judge("reference", BENCH).score(same, EDITED).problem == "The reference picture is the input itself."


def test_unknown_judges_and_missing_models() -> None:
    assert set(JUDGES) == {"vlm", "reference"}
    with pytest.raises(ValueError, match="choose from vlm, reference"):
        open_judge("nobody", BENCH)
    with pytest.raises(ValueError, match="needs a vision-language model"):
        open_judge("vlm", BENCH)
