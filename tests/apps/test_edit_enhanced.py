"""`chronoedit edit --use-prompt-enhancer`: a longer prompt that is kept, and what happens when none comes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from chronoedit import media
from chronoedit.apps.main import main
from chronoedit.vlm.prompts import ENHANCER

from ..vlm.conftest import GOOD, Script, script  # noqa: F401 - a fixture

WISH = "push the ball to the cube"


@pytest.fixture
def ask(tmp_path: Path, random_checkpoint_no_image: Path):
    """Run an edit of two steps with more flags; its exit code."""
    Image.new("RGB", (80, 60), "red").save(tmp_path / "photo.png")

    def run(*words: object) -> int:
        files = ["-i", tmp_path / "photo.png", "-o", tmp_path / "out.png"]
        model = ["--model-path", random_checkpoint_no_image]
        return main(list(map(str, ["edit", *files, *model, *words])))

    return run


def enhancer(script: Script) -> tuple[str, ...]:  # noqa: F811
    few = ("-p", WISH, "--num-inference-steps", "2")
    return (*few, "--use-prompt-enhancer", "--prompt-enhancer-model", "some/vlm", "--vlm-url", script.url)


def request_of(path: Path) -> dict:
    return media.read_metadata(path)["request"]


def test_the_enhanced_prompt_is_used_and_kept(
    ask,
    script: Script,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script.answers = ["The user wants a ball.", GOOD]
    assert ask(*enhancer(script), "--seed", 1) == 0
    first = request_of(tmp_path / "out.png")
    assert (first["prompt"], first["original_prompt"]) == (GOOD, WISH)
    assert GOOD in capsys.readouterr().err
    assert script.asked[0]["model"] == "some/vlm" and script.asked[0]["messages"][0]["content"] == ENHANCER
    assert len(script.asked) == 2  # the first was too short, and sent back
    kept = tmp_path / "kept.png"
    (tmp_path / "out.png").rename(kept)
    assert ask("--like", kept) == 0 and len(script.asked) == 2  # repeated without asking again
    assert "pixel for pixel" in capsys.readouterr().out
    assert ask("-p", GOOD, "--num-inference-steps", 2, "--seed", 1) == 0
    assert request_of(tmp_path / "out.png")["original_prompt"] is None


@pytest.mark.parametrize("answer", ["A ball.", "Der Ball soll zum Würfel.", (401, {"error": {"message": "who?"}})])
def test_without_an_answer_the_edit_goes_on_unless_one_is_required(
    ask,
    script: Script,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    answer: object,
) -> None:
    script.answers = [answer]
    assert ask(*enhancer(script), "--require-enhancer") == 1
    assert not (tmp_path / "out.png").exists() and "not enhanced" not in capsys.readouterr().err
    assert ask(*enhancer(script)) == 0
    assert "the prompt is not enhanced, the edit goes on with yours" in capsys.readouterr().err
    request = request_of(tmp_path / "out.png")
    assert (request["prompt"], request["original_prompt"]) == (WISH, None)


def test_flags_that_contradict_each_other(ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("-p", WISH, "--vlm-url", "http://localhost/v1") == 2
    assert "without --use-prompt-enhancer" in capsys.readouterr().err
    assert ask("--task", "upscale", "--use-prompt-enhancer") == 2
    assert "needs its own words" in capsys.readouterr().err
