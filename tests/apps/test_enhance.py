"""`chronoedit enhance`: the published flags, the checked answer, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronoedit.apps.main import main
from chronoedit.vlm.prompts import ENHANCER

from ..vlm.conftest import GOOD, Script, script  # noqa: F401 - a fixture

PICTURE = str(Path(__file__).parents[2] / "examples" / "table.png")
ASK = ["enhance", "--input-image", PICTURE, "--input-prompt", "push the ball to the cube"]


def test_the_published_flags(
    script: Script,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLM_API_KEY", "secret")
    assert main([*ASK, "--model", "Qwen/Qwen3-VL-8B", "--vlm-url", script.url]) == 0
    assert capsys.readouterr().out.strip() == GOOD
    assert script.asked[0]["model"] == "Qwen/Qwen3-VL-8B" and script.keys == ["Bearer secret"]
    assert script.asked[0]["messages"][0]["content"] == ENHANCER


def test_an_answer_that_stays_wrong_is_an_error(script: Script, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    script.answers = ["A ball."]
    assert main([*ASK, "--vlm-url", script.url]) == 1
    found = capsys.readouterr()
    assert found.out == "" and "did not manage it in 3 requests" in found.err and "A ball." in found.err


def test_what_is_told_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enhance", "--print-enhancer-prompt"]) == 0
    assert capsys.readouterr().out.strip() == ENHANCER


def test_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ASK, "--model", "nowhere/at all"]) == 1 and "--vlm-url" in capsys.readouterr().err
    assert main(["enhance", "--vlm-url", "http://localhost/v1"]) == 2
    assert main([*ASK, "--vlm-url", "here"]) == 2


def test_what_would_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ASK, "--dry-run"]) == 0
    found = capsys.readouterr()
    assert ENHANCER in found.out and "push the ball to the cube" in found.out and "[picture, 128x128 px]" in found.out
    assert "tokens" in found.err and "nothing was sent" in found.err
