"""What an enhanced prompt must be: English, of a length, with its opening, and with quoted text as it was."""

from __future__ import annotations

import pytest

from chronoedit.vlm.checks import enhanced_prompt_problem, is_english, quoted

from .conftest import GOOD


def test_a_good_one() -> None:
    assert enhanced_prompt_problem(GOOD, "push the ball to the cube") is None


@pytest.mark.parametrize(
    ("answer", "request_text", "problem"),
    [
        (GOOD.replace("The user wants to", "Please"), "push", 'must begin with "The user wants to"'),
        (GOOD + " Nothing else in the picture changes at all, in any way.", "push", "use fewer"),
        (" ".join(GOOD.split()[:40]), "push", "has 40 words, and must have 80 to 100: use more"),
        ("The user wants to " + "den roten Ball schieben lassen " * 18, "push", "must be in English"),
        ("The user wants to " + "把红球推到右边 " * 80, "push", "must be in English"),
        (GOOD, 'write "Grüß Gott" on the wall', "quoted text exactly as it is: Grüß Gott"),
        (GOOD.replace(". In the end", ".\nIn the end"), "push", "one paragraph"),
    ],
)
def test_what_is_wrong_is_said(answer: str, request_text: str, problem: str) -> None:
    found = enhanced_prompt_problem(answer, request_text)
    assert found is not None and problem in found


def test_quotation_marks() -> None:
    assert quoted("write \"one\", “two”, «three» and 'four'; don't stop") == ["one", "two", "three", "four"]
    assert is_english("the sign on the wall says “欢迎光临” in red, and the rest of it stays as it is")
    assert not is_english("12 + 3")
