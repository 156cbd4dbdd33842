"""Judges whose errors are known, and what the check says of them."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.errors import OutputError, VlmError
from chronoedit.evaluation.cases import Case, Verdict
from chronoedit.evaluation.judge_check import JudgeCheck, edited_picture, read_judgements, run_check, world_case
from chronoedit.evaluation.rates import Answers, difference_of, half_difference_of, mean_of, rate_of, wilson
from chronoedit.evaluation.spoil import SPOILINGS
from chronoedit.evaluation.synthetic_judge import Errors, SyntheticJudge, parse_errors
from chronoedit.evaluation.trust import COPY, TRUE, Judgement, mistakes, rates, summarise
from chronoedit.evaluation.trust_pages import check_page
from chronoedit.ledger import Ledger
from chronoedit.media import load_image
from chronoedit.world import FIRST_EVALUATION_SEED, sample_item

SCALE = (1.0, 5.0)
SMALL = JudgeCheck(items=3, size_px=128, spoilings=2)


@dataclass
class Constant:
    """A judge for tests that gives every picture the same score, and may stop."""

    value: float = 4.5
    name: str = "constant"
    stops_after: int | None = None
    seen: list[str] = field(default_factory=list)

    def score(self, case: Case, edited: Image.Image) -> Verdict:
        if self.stops_after is not None and len(self.seen) >= self.stops_after:
            raise VlmError("the server has gone")
        self.seen.append(case.key)
        return Verdict(scores={"overall": self.value}, reason="so it is")


def said(errors: Errors, items: int, seed: int) -> list[Judgement]:
    """What a judge with these errors says of `items` scenes, without drawing them."""
    judge = SyntheticJudge(errors, scale=SCALE, threshold=4.0)
    rng = np.random.default_rng(seed)
    found = []
    for item in range(items):
        for kind in (TRUE, COPY, *SPOILINGS):
            verdict = judge.say(rng, true=kind == TRUE, copied=kind == COPY)
            found.append(
                Judgement(
                    seed=item,
                    family="any",
                    edit="add",
                    prompt="add a ball",
                    kind=kind,
                    scores=verdict.scores,
                    problem=verdict.problem,
                    refused=verdict.refused,
                )
            )
    return found


def judgement(seed: int, kind: str, score: float | None, **more: object) -> Judgement:
    scores = {} if score is None else {"overall": score}
    problem = "it refused" if score is None else None
    values = {"family": "any", "edit": "add", "prompt": "", "problem": problem, "refused": score is None, **more}
    return Judgement(seed=seed, kind=kind, scores=scores, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("errors", "items"),
    [
        (Errors(accuracy=0.8, bias=0.1), 30),
        (Errors(accuracy=0.6, bias=-0.2, copies=0.15), 50),
        (Errors(accuracy=0.95, bias=0.04), 40),
        (Errors(accuracy=0.7, refused=0.1, unreadable=0.1), 40),
    ],
)
def test_a_known_judge_is_recovered_within_the_interval(errors: Errors, items: int) -> None:
    truth = {
        "accuracy": errors.accuracy,
        "sensitivity": errors.accuracy + errors.bias,
        "specificity": errors.accuracy - errors.bias,
        "ranks_true_first": errors.accuracy,
        "copies_passed": 1 - errors.accuracy + errors.bias + errors.copies,
        "leans_to_passing": errors.bias,
        "leans_to_copies": errors.copies,
    }
    covered: Counter[str] = Counter()
    for seed in range(200):
        found = rates(said(errors, items, seed), 4.0)
        for name, value in truth.items():
            low, high = found[name]["interval"]
            covered[name] += low - 1e-9 <= value <= high + 1e-9
    # 95 % of 200 is 190, with a standard deviation of 3; a share of few answers is covered more often than that
    assert all(covered[name] >= 180 for name in truth), covered


def test_intervals_are_no_wider_than_they_must_be() -> None:
    widths = []
    for seed in range(50):
        low, high = rates(said(Errors(accuracy=0.8), 100, seed), 4.0)["accuracy"]["interval"]
        widths.append(high - low)
    # two independent shares of 100 and 500 answers
    assert np.mean(widths) == pytest.approx(1.96 * math.sqrt(0.16 / 100 + 0.16 / 500), rel=0.05)


def test_no_answer_is_left_out_and_wrong_when_strict() -> None:
    errors = Errors(accuracy=0.8, refused=0.2, unreadable=0.1)
    summary = summarise(said(errors, 400, 0), threshold=4.0, scale=SCALE)
    assert summary["overall"]["accuracy"]["rate"] == pytest.approx(0.8, abs=0.03)
    assert summary["overall"]["strict_accuracy"]["rate"] == pytest.approx(0.8 * 0.7, abs=0.03)
    assert summary["refused"]["rate"] == pytest.approx(0.2, abs=0.02)
    assert summary["unreadable"]["rate"] == pytest.approx(0.1, abs=0.02)


def test_an_answer_to_some_of_the_questions_is_none() -> None:
    partly = Judgement(
        seed=1, family="any", edit="add", prompt="", kind=TRUE, scores={"a": 5.0}, problem="b was not read"
    )
    assert not partly.answered and not partly.is_right(4.0)


def test_figures_by_hand() -> None:
    found = rates(
        [
            judgement(1, TRUE, 5.0),
            judgement(1, COPY, 5.0),
            judgement(1, "moved", 2.0),
            judgement(1, "missing", 4.0),
            judgement(2, TRUE, 3.0),
            judgement(2, COPY, 1.0),
            judgement(2, "moved", 3.0),
        ],
        4.0,
    )
    rate = {name: found[name]["rate"] for name in found}
    assert rate["sensitivity"] == 0.5  # 5 passes, 3 does not
    assert rate["specificity"] == pytest.approx(2 / 3)
    assert rate["accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert rate["leans_to_passing"] == pytest.approx((1 / 2 - 2 / 3) / 2)
    assert rate["ranks_true_first"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert rate["ranks_true_over_copy"] == pytest.approx((0.5 + 1) / 2)
    assert rate["copies_passed"] == 0.5
    assert rate["leans_to_copies"] == pytest.approx(1 / 2 - 1 / 3)


def test_groups_kinds_and_thresholds() -> None:
    judgements = [
        *(judgement(k, TRUE, 4.0 + k % 2, family="table", edit="push") for k in range(4)),
        *(judgement(k, "moved", 2.0, family="table", edit="push") for k in range(4)),
        judgement(9, COPY, None, family="any", edit="add"),
    ]
    summary = summarise(judgements, threshold=4.0, scale=SCALE)
    assert summary["families"]["any"]["accuracy"] is None  # neither a true nor a spoiled edit
    assert summary["families"]["table"]["accuracy"]["rate"] == summary["edits"]["push"]["accuracy"]["rate"] == 1
    assert list(summary["kinds"]) == [TRUE, COPY, "moved"]
    assert summary["kinds"][TRUE]["score"]["mean"] == 4.5 and summary["kinds"][COPY]["score"] is None
    by_threshold = {row["threshold"]: row for row in summary["thresholds"]}
    assert by_threshold[4.0]["accuracy"] == 1 and by_threshold[4.25]["sensitivity"] == 0.5
    assert by_threshold[2.0]["specificity"] == 0
    with pytest.raises(ValueError, match="no picture"):
        summarise([], threshold=4.0, scale=SCALE)


def test_worst_mistakes_of_each_kind_come_first() -> None:
    judgements = [judgement(k, "moved", 4.0 + k / 10) for k in range(5)]
    judgements += [judgement(7, TRUE, 1.0), judgement(8, TRUE, 5.0), judgement(9, TRUE, None)]
    assert [(j.seed, j.kind) for j in mistakes(judgements, 4.0, 3)] == [(7, TRUE), (4, "moved"), (3, "moved")]


def test_wilson_against_published_values() -> None:
    low, high = wilson(15 / 148, 148)  # Newcombe 1998, table I
    assert (round(low, 4), round(high, 4)) == (0.0624, 0.1605)
    assert wilson(0.0, 20) == (0.0, pytest.approx(0.1611, abs=1e-4))
    assert wilson(1.0, 29)[1] == 1.0
    with pytest.raises(ValueError, match="share"):
        wilson(1.2, 10)


def test_answers_that_share_an_item_are_worth_less() -> None:
    alone: Answers = [(k, float(k % 2)) for k in range(100)]
    together: Answers = [(k // 5, float((k // 5) % 2)) for k in range(100)]  # 20 items, each with 5 equal answers
    few: Answers = [(k, float(k % 2)) for k in range(20)]
    assert rate_of(alone).low == wilson(0.5, 100)[0]
    assert rate_of(together).low == pytest.approx(rate_of(few).low, abs=0.01)
    assert rate_of([(k // 5, 1.0) for k in range(100)]).low == wilson(1.0, 20)[0]
    assert rate_of(together).count == 100 and rate_of(together).items == 20
    with pytest.raises(ValueError, match="at least one"):
        rate_of([])
    with pytest.raises(ValueError, match="from 0 to 1"):
        rate_of([(1, 1.5)])


def test_scenes_of_unequal_difficulty_are_covered_too() -> None:
    covered = plain = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        chances = rng.beta(0.8, 0.2, 30)  # of being right in each scene: 0.8 on the whole
        answers = [(scene, float(rng.uniform() < chance)) for scene, chance in enumerate(chances) for _ in range(5)]
        found = rate_of(answers)
        covered += found.low <= 0.8 <= found.high
        low, high = wilson(found.rate, len(answers))
        plain += low <= 0.8 <= high
    assert covered >= 180 and plain < 170  # of 200; answers on one scene are not independent


def test_combined_rates() -> None:
    first: Answers = [(k, float(k < 28)) for k in range(32)]
    second: Answers = [(100 + k, float(k < 3)) for k in range(32)]
    half, whole = half_difference_of(first, second), difference_of(first, second)
    assert whole.rate == pytest.approx(25 / 32) == 2 * half.rate and whole.low == 2 * half.low
    a, b = rate_of(first), rate_of(second)  # of other items: Newcombe's interval of two independent shares
    assert whole.low == pytest.approx(25 / 32 - math.hypot(a.rate - a.low, b.high - b.rate))
    assert mean_of(first, second).rate == pytest.approx(31 / 64)
    same = difference_of(first, first)
    assert same.rate == 0 and same.low <= 0 <= same.high and same.high - same.low < 0.25


def test_true_edits_pass_the_exact_score_and_bad_ones_do_not() -> None:
    item = sample_item(100_000)
    assert np.array_equal(edited_picture(item, TRUE), item.target)
    assert np.array_equal(edited_picture(item, COPY), item.input)
    nothing = sample_item(100_000, family="any", edit="nothing")
    assert edited_picture(nothing, COPY) is None  # where nothing is to be done, the copy is right
    with pytest.raises(ValueError, match="unknown spoiling"):
        edited_picture(item, "blurred")


def test_the_case_of_a_scene() -> None:
    item = sample_item(100_003, size=256)
    case = world_case(item)
    assert np.array_equal(np.asarray(load_image(case.image.read())), item.input)
    assert case.reference is not None and case.reference.name == "target of seed 100003"
    assert np.array_equal(np.asarray(load_image(case.reference.read())), item.target)
    assert case.prompt == item.prompt and case.category == item.family


def test_ways_of_spoiling_take_turns() -> None:
    counts = Counter(kind for seed in range(100_000, 100_005) for kind in SMALL.kinds(seed))
    assert counts == {TRUE: 5, COPY: 5, **dict.fromkeys(SPOILINGS, 2)}


def test_a_perfect_judge(tmp_path: Path) -> None:
    judge = SyntheticJudge(Errors(), scale=SCALE, threshold=4.0)
    told: list[tuple[int, int]] = []
    summary = run_check(judge, SMALL, tmp_path, workers=2, report=lambda *done: told.append(done))
    assert summary["overall"]["accuracy"]["rate"] == 1 and summary["overall"]["copies_passed"]["rate"] == 0
    assert summary["overall"]["accuracy"]["interval"][0] < 0.9  # three scenes prove little
    assert told[-1] == (12, 12)
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(summary))
    judgements, left_out = read_judgements(Ledger(tmp_path / "verdicts.jsonl"), SMALL)
    assert len(judgements) + left_out == 12
    page = check_page(summary, judgements, judge=judge.name, size_px=128).html()
    assert "every answer is right" in page and judge.name in page


def test_a_judge_that_passes_everything_and_its_page(tmp_path: Path) -> None:
    summary = run_check(Constant(), SMALL, tmp_path)
    overall = summary["overall"]
    assert overall["sensitivity"]["rate"] == 1 and overall["specificity"]["rate"] == 0
    assert overall["leans_to_passing"]["rate"] == 0.5 and overall["ranks_true_first"]["rate"] == 0.5
    judgements, _ = read_judgements(Ledger(tmp_path / "verdicts.jsonl"), SMALL)
    page = check_page(summary, judgements, judge="constant", size_px=128).html()
    assert page.count("<img") == min(12, len([j for j in judgements if j.kind != TRUE]))
    assert "so it is" in page and "http" not in page.replace("http://www.w3.org", "")


def test_a_stopped_check_goes_on(tmp_path: Path) -> None:
    stopping = Constant(stops_after=5)
    with pytest.raises(VlmError):
        run_check(stopping, SMALL, tmp_path)
    going_on = Constant()
    run_check(going_on, SMALL, tmp_path)
    left_out = read_judgements(Ledger(tmp_path / "verdicts.jsonl"), SMALL)[1]
    assert len(stopping.seen) + len(going_on.seen) + left_out == 12
    again = Constant()
    run_check(again, JudgeCheck(items=2, size_px=128, spoilings=2, threshold=2.0), tmp_path)
    assert not again.seen  # fewer items and another threshold need nothing new


def test_failed_answers_are_asked_again_on_request(tmp_path: Path) -> None:
    silent = SyntheticJudge(Errors(unreadable=1.0), scale=SCALE, threshold=4.0)
    summary = run_check(silent, SMALL, tmp_path)
    assert summary["unreadable"]["rate"] == 1 and summary["overall"]["accuracy"] is None
    untouched = Constant()
    run_check(untouched, SMALL, tmp_path)
    assert not untouched.seen
    assert run_check(Constant(), SMALL, tmp_path, retry_failed=True)["unreadable"]["rate"] == 0


def test_a_folder_of_another_check_is_refused(tmp_path: Path) -> None:
    run_check(Constant(), JudgeCheck(items=1, size_px=128, spoilings=1, judge={"name": "a"}), tmp_path)
    with pytest.raises(OutputError, match="judge differ"):
        run_check(Constant(), JudgeCheck(items=1, size_px=128, spoilings=1, judge={"name": "b"}), tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        run_check(Constant(), SMALL, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"items": 0}, "1 or more"),
        ({"first_seed": 5}, f"start at {FIRST_EVALUATION_SEED}"),
        ({"size_px": 100}, "multiple of 16"),
        ({"family": "garden"}, "choose from table"),
        ({"spoilings": 6}, "from 1 to 5"),
        ({"threshold": 1.0}, "above 1"),
        ({"threshold": 5.5}, "at most 5"),
    ],
)
def test_checks_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JudgeCheck(**settings)


def test_a_synthetic_judge_says_the_same_again_and_knows_its_world_only() -> None:
    judge = SyntheticJudge(Errors(accuracy=0.5), scale=SCALE, threshold=3.0)
    item = sample_item(100_001)
    case, target = world_case(item), Image.fromarray(item.target)
    assert judge.score(case, target) == judge.score(case, target)
    with pytest.raises(ValueError, match="none of the world"):
        judge.score(Case(key="x", prompt="", image=case.image), target)


def test_known_errors_from_words() -> None:
    assert parse_errors("synthetic:accuracy=0.8, bias=0.1,seed=3") == Errors(accuracy=0.8, bias=0.1, seed=3)
    assert parse_errors("synthetic") == Errors()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("synthetic:precision=1", "choose from accuracy, bias"),
        ("synthetic:accuracy=high", "not a number"),
        ("synthetic:accuracy=0.9,accuracy=0.8", "given twice"),
        ("synthetic:accuracy=0.8,bias=0.3", r"accuracy \+ bias is 1.1"),
        ("synthetic:accuracy=nan", "no chance"),
        ("synthetic:copies=-0.5", "copies is -0.5"),
        ("synthetic:refused=0.6,unreadable=0.6", "refused \\+ unreadable"),
        ("synthetic:seed=0.5", "not a number"),
    ],
)
def test_errors_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_errors(text)
