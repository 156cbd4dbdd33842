"""Which of two edits is better: judges that know, that guess by place, that refuse, and runs of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.errors import OutputError, VlmError
from chronoedit.evaluation.bench_report import write_pairs_report
from chronoedit.evaluation.bench_run import BenchRun, claim, data_fingerprint, edit_cases
from chronoedit.evaluation.pairs import Preference, prefer, read_pairs, run_pairs, summarise_pairs
from chronoedit.vlm.asking import Question, Turn

from .bench_fakes import BENCH, Painter, Scripted, write_data

DARK, BRIGHT = Image.new("RGB", (32, 32), (50, 50, 50)), Image.new("RGB", (32, 32), (200, 200, 200))
Answer = Callable[[list[Turn], Question], "str | None"]


def choice(better: str) -> str:
    return json.dumps({"reason": f"it is {better}", "better": better})


def likes_bright(turns: list[Turn], question: Question) -> str:
    """Prefers the brighter edit, wherever it stands."""
    first, second = (float(np.asarray(image).mean()) for image in question.images[1:])
    return choice("tie" if first == second else "first" if first > second else "second")


def by_place(turns: list[Turn], question: Question) -> str:
    return choice("first")


@pytest.mark.parametrize(
    ("forward", "backward", "winner", "contradicts"),
    [
        ("first", "second", "a", False),
        ("second", "first", "b", False),
        ("first", "first", "tie", True),
        ("second", "second", "tie", True),
        ("tie", "tie", "tie", False),
        ("first", "tie", "tie", False),
        ("tie", "first", "tie", False),
        (None, "first", None, False),
        ("second", None, None, False),
        (None, None, None, False),
    ],
)
def test_both_orders_must_agree(
    forward: str | None, backward: str | None, winner: str | None, contradicts: bool
) -> None:
    preference = Preference(forward=forward, backward=backward)
    assert preference.winner == winner and preference.contradicts is contradicts


def test_both_orders_are_asked() -> None:
    asked: list[Question] = []

    def answer(turns: list[Turn], question: Question) -> str:
        asked.append(question)
        return likes_bright(turns, question)

    preference = prefer(Scripted(name="m", answer=answer), "brighten it", DARK, DARK, BRIGHT)
    assert preference.winner == "b" and preference.reasons == ("it is second", "it is first")
    assert [image is DARK for question in asked for image in question.images] == [True, True, False, True, False, True]
    assert "brighten it" in asked[0].text


def test_refusals_and_garbage_have_no_winner() -> None:
    refusing = prefer(Scripted(name="m", answer=lambda turns, question: None), "x", DARK, DARK, BRIGHT)
    assert refusing.winner is None and refusing.refused and "I will not look" in str(refusing.problem)
    garbage = prefer(Scripted(name="m", answer=lambda turns, question: "the first"), "x", DARK, DARK, BRIGHT)
    assert garbage.winner is None and not garbage.refused and "JSON" in str(garbage.problem)
    assert garbage.reasons == ("the first", "the first")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs on six items: the second editor paints darker, and each fails at one item."""
    folders = (tmp_path / "a", tmp_path / "b")
    cases = list(
        BENCH.read(write_data(tmp_path, ["turn it", "lift it", "fail at it", "push it", "drop it", "hold it"]))
    )
    for seed, folder in enumerate(folders):
        run = BenchRun(bench="fake", data=data_fingerprint(cases), editor={"seed": seed}, first_seed=seed)
        claim(folder, run)
        edit_cases(cases, Painter(broken=seed == 0), run, folder)
    return folders


def run(answer: Answer, runs: tuple[Path, Path], folder: Path) -> tuple[dict, Scripted]:
    model = Scripted(name="m", answer=answer)
    return run_pairs(model, runs, folder, workers=2), model


def test_a_judge_that_knows(runs: tuple[Path, Path], tmp_path: Path) -> None:
    summary, model = run(likes_bright, runs, tmp_path / "pairs")
    # the baselines are not compared; the item at which A failed is B's without a question
    assert (summary["pairs"], summary["wins_a"], summary["wins_b"], summary["ties"]) == (6, 5, 1, 0)
    assert model.sent == 10 and summary["contradictions"] == 0
    assert summary["a_preferred"]["overall"]["mean"] == pytest.approx(5 / 6)
    assert set(summary["a_preferred"]) == {"overall", "human", "robot"}
    assert summary["order"]["mean"] == 0
    assert json.loads((tmp_path / "pairs" / "summary.json").read_text()) == json.loads(json.dumps(summary))


def test_a_judge_that_goes_by_the_order_is_caught(runs: tuple[Path, Path], tmp_path: Path) -> None:
    summary, _ = run(by_place, runs, tmp_path / "pairs")
    assert (summary["wins_a"], summary["wins_b"], summary["ties"], summary["contradictions"]) == (0, 1, 5, 5)
    assert summary["order"]["mean"] == 0.5 and summary["order"]["interval"] == [0.5, 0.5]
    assert summary["a_preferred"]["overall"]["mean"] == pytest.approx(2.5 / 6)


def test_a_stopped_comparison_goes_on(runs: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    stopping = Scripted(name="m", answer=likes_bright, max_requests=5)
    with pytest.raises(VlmError, match="budget"):
        run_pairs(stopping, runs, folder)
    done = len(read_pairs(folder))
    assert 0 < done < 6
    told: list[tuple[int, int]] = []
    again = Scripted(name="m", answer=likes_bright)
    summary = run_pairs(again, runs, folder, report=lambda done, total: told.append((done, total)))
    assert summary["pairs"] == 6 and told[0] == (done + 1, 6) and again.sent < 10
    with pytest.raises(OutputError, match="another comparison"):
        run_pairs(again, (runs[1], runs[0]), folder)
    with pytest.raises(OutputError, match="another comparison"):
        run_pairs(Scripted(name="other"), runs, folder)


def test_the_page_shows_who_won(runs: tuple[Path, Path], tmp_path: Path) -> None:
    summary, _ = run(likes_bright, runs, tmp_path / "pairs")
    page = write_pairs_report(summary, read_pairs(tmp_path / "pairs"), runs, tmp_path / "pairs").read_text()
    assert "A won: input, A, B" in page and page.count("data:image/png") == 5 and "it is first" in page
    assert "Position bias" in page


def test_runs_with_nothing_in_common_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    claim(other, BenchRun(bench="fake", data="none"))
    with pytest.raises(ValueError, match="no item in common"):
        run_pairs(Scripted(name="m"), (runs[0], other), tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()
    edits = [json.loads(line) for line in (runs[0] / "edits.jsonl").read_text().splitlines()]
    (other / "edits.jsonl").write_text("".join(json.dumps({**edit, "prompt": "else"}) + "\n" for edit in edits))
    with pytest.raises(ValueError, match="ask for other things at item part/0"):
        run_pairs(Scripted(name="m"), (runs[0], other), tmp_path / "pairs")
    with pytest.raises(OutputError, match="give a folder"):
        run_pairs(Scripted(name="m"), (runs[0], tmp_path), tmp_path / "pairs")
    with pytest.raises(ValueError, match="no pair is judged"):
        summarise_pairs([])
