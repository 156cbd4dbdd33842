"""`chronoedit eval judge-check` as it is typed, with judges of known errors and a scripted vision-language model."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chronoedit.apps.main import main

from ..vlm.conftest import Script, reply, script  # noqa: F401 - a fixture

CRITERIA = ("action_fidelity", "identity_preservation", "visual_coherence")


def words(folder: Path, *more: str) -> list[str]:
    return [
        "eval",
        "judge-check",
        "--items",
        "3",
        "--size",
        "128",
        "--spoilings",
        "1",
        "-o",
        str(folder / "out"),
        *more,
    ]


def pictures(asked: dict[str, Any]) -> list[np.ndarray]:
    parts = asked["messages"][1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in urls]


def passes_all_but_copies(asked: dict[str, Any]) -> str:
    before, edited = pictures(asked)
    value = 1 if np.array_equal(before, edited) else 5
    return json.dumps({"reason": "I looked.", **dict.fromkeys(CRITERIA, value)})


def test_a_judge_of_known_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = words(tmp_path, "--judge", "synthetic:accuracy=1")
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "100% (" in printed and "true edits that pass" in printed and "recoloured" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "run.json",
        "verdicts.jsonl",
        "summary.json",
        "report.html",
    }
    assert main([*asked, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["overall"]["accuracy"]["rate"] == 1 and summary["run"]["spoilings"] == 1
    assert main([*asked, "--threshold", "3"]) == 1  # a judge of known errors has its own
    assert "holds another check" in capsys.readouterr().err


def test_a_vision_language_model(
    script: Script,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script.answers = passes_all_but_copies
    asked = words(tmp_path, "--vlm-url", script.url, "--vlm-model", "judge", "--concurrency", "2", "--json")
    assert main([*asked, "--family", "table"]) == 0
    summary = json.loads(capsys.readouterr().out)
    rate = {name: of["rate"] for name, of in summary["overall"].items() if of is not None}
    assert rate["sensitivity"] == 1 and rate["specificity"] == 0 and rate["copies_passed"] == 0
    assert rate["leans_to_passing"] == 0.5 and rate["leans_to_copies"] == -1
    assert summary["families"].keys() == {"table"} and summary["run"]["judge"]["name"] == "vlm:judge"
    assert summary["kinds"]["true"]["criteria"].keys() == set(CRITERIA)
    assert len(script.asked) == summary["pictures"]
    sent = len(script.asked)
    assert main([*asked, "--family", "table", "--threshold", "5"]) == 0  # known already
    assert len(script.asked) == sent


def test_refusals_and_garbage_are_counted_and_asked_again(
    script: Script,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(asked: dict[str, Any]) -> Any:
        before, edited = pictures(asked)
        return reply(None, refusal="I would rather not.") if np.array_equal(before, edited) else "Nice picture!"

    script.answers = answer
    asked = words(tmp_path, "--vlm-url", script.url, "--json")
    assert main(asked) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["refused"]["rate"] > 0 and summary["unreadable"]["rate"] > 0
    assert summary["refused"]["rate"] + summary["unreadable"]["rate"] == 1
    assert summary["overall"]["accuracy"] is None and summary["overall"]["strict_accuracy"]["rate"] == 0
    script.answers = passes_all_but_copies
    assert main([*asked, "--retry-failed"]) == 0
    assert json.loads(capsys.readouterr().out)["unreadable"]["rate"] == 0


def test_how_near_the_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "--judge", "reference", "--family", "table", "--json")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["kinds"]["true"]["score"]["mean"] == 5
    assert summary["overall"]["ranks_true_first"]["rate"] == 1


def test_what_would_be_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "--dry-run", "--vlm-url", "http://nowhere.invalid/v1")) == 0
    found = capsys.readouterr()
    assert found.out.count("[picture, 128x128 px]") == 2 and "action_fidelity" in found.out
    assert "at most 9 pictures" in found.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--judge", "oracle"], "choose from vlm, reference, synthetic"),
        (["--judge", "synthetic:accuracy=2"], "no chance"),
        (["--judge", "reference", "--dry-run"], "sends nothing"),
        (["--threshold", "9"], "at most 5"),
        (["--first-seed", "1"], "start at 100000"),
        (["--family", "garden"], "choose from table"),
        (["--concurrency", "0"], "below 1"),
        (["--vlm-url", "here"], "http"),
    ],
)
def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str) -> None:
    assert main(words(tmp_path, *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "judge-check", "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) < 70
