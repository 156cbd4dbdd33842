"""Runs of a benchmark with editors and judges whose results are known: stopped, resumed, judged anew, compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chronoedit.errors import OutputError
from chronoedit.evaluation.bench_report import choose_items, is_main, write_report
from chronoedit.evaluation.bench_run import (
    BenchRun,
    check_bench,
    claim,
    data_fingerprint,
    edit_cases,
    edit_key,
    is_edited,
    judge_edits,
    read_edits,
    read_run,
    read_verdicts,
)
from chronoedit.evaluation.bench_summary import compare, compare_runs, items_of, read_items, summarise, write_items
from chronoedit.evaluation.cases import Case

from .bench_fakes import BENCH, Brightness, Painter, Scripted, scores, words_of, write_data

PROMPTS = ["turn it", "fail at it", "unread words", "refuse it", "push it"]


def prepared(folder: Path, prompts: list[str] = PROMPTS, **settings: Any) -> tuple[list[Case], BenchRun]:
    cases = list(BENCH.read(write_data(folder, prompts)))
    run = BenchRun(bench="fake", data=data_fingerprint(cases), editor={"painter": 1}, **settings)
    claim(folder / "run", run)
    return cases, run


def finished(folder: Path, **settings: Any) -> tuple[list[Case], list[dict[str, Any]]]:
    """A whole run below `folder`; its cases and items."""
    folder.mkdir(exist_ok=True)
    cases, run = prepared(folder, **settings)
    edit_cases(cases, Painter(), run, folder / "run")
    judge_edits(cases, lambda repeat: Brightness(), run, folder / "run", workers=2)
    items = items_of(cases, BENCH, folder / "run")
    write_items(items, folder / "run")
    return cases, items


def test_every_edit_is_kept_with_its_scores_or_its_error(tmp_path: Path) -> None:
    cases, run = prepared(tmp_path, repeats=2)
    painter, told = Painter(), []
    edit_cases(cases, painter, run, tmp_path / "run", report=lambda done, total: told.append((done, total)))
    edits = read_edits(tmp_path / "run")
    assert len(edits) == 5 * 4 and told == [(k, 5) for k in range(1, 6)]
    assert painter.asked[:2] == [("part/0", 0), ("part/0", 1)]
    made = edits[edit_key("part/0", "editor", 1)]
    assert made.seed == 1 and made.error is None and made.image is not None and made.objective is not None
    picture = np.asarray(Image.open(tmp_path / "run" / made.image))
    assert tuple(picture[10, 10]) == (250, 190, 250)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "run" / str(made.input))), Image.open(tmp_path / "0.png"))
    failed = edits[edit_key("part/1", "editor", 0)]
    assert failed.error == "it was to fail" and failed.image is None and failed.objective is None
    copied = edits[edit_key("part/1", "copy", 0)]
    assert copied.objective is not None and copied.objective["outside_psnr_db"] == 99
    assert {edit.row for edit in edits.values()} == {"editor", "copy", "noise"}


def test_a_stopped_run_goes_on_and_failures_are_tried_again_when_asked(tmp_path: Path) -> None:
    cases, run = prepared(tmp_path, repeats=2)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        edit_cases(cases, Painter(stops_after=3), run, folder)
    assert len(read_edits(folder)) == 5 and not is_edited(cases, run, folder)  # 2 + copy + noise, and one failure
    with (folder / "edits.jsonl").open("a") as file:
        file.write('{"key": "editor/1/pa')  # killed while writing
    painter = Painter()
    edit_cases(cases, painter, run, folder)
    assert painter.asked[0] == ("part/1", 1) and len(painter.asked) == 7
    assert is_edited(cases, run, folder) and not is_edited(cases, run, folder, retry_failed=True)
    again = Painter(broken=False)
    edit_cases(cases, again, run, folder, retry_failed=True)
    assert again.asked == [("part/1", 0), ("part/1", 1)]
    assert all(edit.error is None for edit in read_edits(folder).values())
    edit_cases(cases, again, replace(run, repeats=3), folder)
    assert len(again.asked) == 2 + 5


def test_an_item_that_cannot_be_read_is_kept_with_its_error(tmp_path: Path) -> None:
    cases, run = prepared(tmp_path)
    (tmp_path / "0.png").unlink()
    (tmp_path / "2.png").write_text("no picture")
    painter = Painter()
    edit_cases(cases, painter, run, tmp_path / "run")
    edits = read_edits(tmp_path / "run")
    assert "0.png cannot be read" in str(edits[edit_key("part/0", "copy", 0)].error)
    assert "not a picture" in str(edits[edit_key("part/2", "editor", 0)].error)
    assert [key for key, _ in painter.asked] == ["part/1", "part/3", "part/4"]


def test_a_folder_keeps_to_one_run(tmp_path: Path) -> None:
    cases, run = prepared(tmp_path)
    for change in ({"editor": {"painter": 2}}, {"data": "other"}, {"bench": "other"}, {"first_seed": 4}):
        with pytest.raises(OutputError, match=f"holds another run: {next(iter(change)).replace('first_', '')} differ"):
            claim(tmp_path / "run", replace(run, **change))
    claim(tmp_path / "run", replace(run, repeats=9, baselines=False))
    with pytest.raises(OutputError, match="give a folder"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(OutputError, match="another kind"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        read_run(tmp_path)


@pytest.mark.parametrize("settings", [{"repeats": 0}, {"first_seed": -1}])
def test_a_run_that_cannot_be_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        BenchRun(bench="b", data="d", **settings)


def test_data_and_benchmarks_that_cannot_be_are_refused(tmp_path: Path) -> None:
    cases = list(BENCH.read(write_data(tmp_path, PROMPTS)))
    with pytest.raises(ValueError, match="two items 'part/0'"):
        data_fingerprint([*cases, cases[0]])
    assert data_fingerprint(cases) == data_fingerprint(reversed(cases)) != data_fingerprint(cases[1:])
    with pytest.raises(ValueError, match="no aggregation 'strict'"):
        check_bench(replace(BENCH, aggregate={"official": BENCH.aggregate["official"]}))
    check_bench(BENCH)


def test_a_judge_sees_each_picture_once(tmp_path: Path) -> None:
    cases, run = prepared(tmp_path, repeats=2)
    folder = tmp_path / "run"
    edit_cases(cases, Painter(), run, folder)
    judges = [Brightness(), Brightness()]
    assert judge_edits(cases, lambda repeat: judges[repeat], run, folder, workers=3) == "brightness"
    assert [len(judge.seen) for judge in judges] == [4 + 10, 4]  # the failed item has a copy and noise alone
    told: list[tuple[int, int]] = []
    judge_edits(
        cases, lambda repeat: judges[repeat], run, folder, report=lambda done, total: told.append((done, total))
    )
    assert sum(len(judge.seen) for judge in judges) == 18 and told == []
    again = Brightness()
    judge_edits(cases, lambda repeat: again, run, folder, retry_failed=True)
    assert sorted(set(again.seen)) == ["part/2", "part/3"]
    other = Brightness(name="other")
    judge_edits(cases[:1], lambda repeat: other, run, folder)
    verdicts = read_verdicts(folder)
    assert {name: len(found) for name, found in verdicts.items()} == {"brightness": 18, "other": 4}
    refused = verdicts["brightness"][edit_key("part/3", "editor", 0)]
    assert refused.refused and refused.problem == "It refuses." and dict(refused.scores) == {}


def test_figures_and_counts_of_a_run(tmp_path: Path) -> None:
    cases, items = finished(tmp_path, repeats=2)
    summary = summarise(cases, BENCH, items)
    assert summary["items"] == 5
    assert summary["edits"]["editor"]["done"] == 8 and summary["edits"]["editor"]["failed"] == 2
    editor = summary["judges"]["brightness"]["editor"]
    assert (editor["judged"], editor["refused"], editor["unread"]) == (8, 2, 2)
    done = [[item["verdicts"]["brightness"]["scores"]["done"] for item in items if item["row"] == "editor"
             and item["repeat"] == repeat and item["case"] in ("part/0", "part/4")] for repeat in (0, 1)]  # fmt: skip
    assert editor["official"]["done"]["value"] == pytest.approx(np.mean(done))
    assert editor["strict"]["done"]["value"] == pytest.approx((np.mean(done) * 2 + 3 * 1) / 5)
    low, high = editor["strict"]["done"]["interval"]
    assert low < editor["strict"]["done"]["value"] < high
    assert editor["official"]["items"]["value"] == 2
    assert editor["criteria"]["done"]["items"] == 2
    repeats = editor["repeats"]["done"]
    assert repeats["values"] == pytest.approx([(sum(each) + 3) / 5 for each in done])
    assert repeats["deviation"] == pytest.approx(np.std(repeats["values"], ddof=1)) and repeats["deviation"] > 0
    copied = summary["judges"]["brightness"]["copy"]
    assert copied["strict"]["done"]["value"] < editor["official"]["done"]["value"]
    assert copied["repeats"]["done"]["deviation"] is None
    assert summary["objective"]["copy"]["outside_psnr_db"]["mean"] == 99
    assert summary["objective"]["editor"]["region_from"] == {"edited": 8}
    assert "outside_psnr_db" not in summary["objective"]["noise"]
    json.dumps(summary, allow_nan=False)
    with pytest.raises(ValueError, match="nothing to summarise"):
        summarise(cases, BENCH, [])


def test_items_are_whole_lines(tmp_path: Path) -> None:
    _, items = finished(tmp_path)
    assert read_items(tmp_path / "run") == json.loads(json.dumps(items))
    made = items[0]
    assert made["figures"]["brightness"]["overall"] == pytest.approx(
        np.mean(list(made["verdicts"]["brightness"]["scores"].values()))
    )
    failed = next(item for item in items if item["error"])
    assert failed["verdicts"] == {} and failed["figures"]["brightness"]["overall"] == 1
    with pytest.raises(OutputError, match="finish that run first"):
        read_items(tmp_path)
    (tmp_path / "items.jsonl").write_text("{\n")
    with pytest.raises(OutputError, match="repeat the command"):
        read_items(tmp_path)


def test_runs_are_compared_item_by_item(tmp_path: Path) -> None:
    cases, items = finished(tmp_path / "one")
    other = tmp_path / "two"
    other.mkdir()
    more, run = prepared(other)
    edit_cases(more, Painter(broken=False), replace(run, first_seed=0), other / "run")
    judge_edits(more, lambda repeat: Brightness(shift=-0.5), run, other / "run")
    write_items(items_of(more, BENCH, other / "run"), other / "run")
    found = compare_runs(tmp_path / "one" / "run", other / "run")
    done = found["figures"]["done"]
    # painted ones 0.5 worse (two of them), the failed one better, what cannot be read as bad as ever
    bright = next(item for item in items if item["row"] == "editor")["verdicts"]["brightness"]["scores"]["done"]
    repaired = bright - 0.5 - 1
    assert done["difference"] == pytest.approx((0.5 + 0.5 - repaired) / 5)
    low, high = done["interval"]
    assert low < done["difference"] < high and done["pairs"] == 5
    differences = [0.5, -repaired, 0.0, 0.0, 0.5]
    assert done["detectable"] == pytest.approx(2.801585 * np.std(differences, ddof=1) / np.sqrt(5), rel=1e-5)
    assert "items" not in found["figures"] and "outside_psnr_db" in found["figures"]
    assert compare(items, items)["figures"]["overall"]["difference"] == 0
    with pytest.raises(ValueError, match=r"5 and 4, 4 in common; .*--limit"):
        compare(items, [item for item in items if item["case"] != "part/0"])
    (other / "run" / "run.json").write_text('{"bench": "other"}')
    with pytest.raises(ValueError, match="a run of fake and .* of other"):
        compare_runs(tmp_path / "one" / "run", other / "run")


def test_runs_without_a_judge_are_compared_by_what_needs_none(tmp_path: Path) -> None:
    cases, run = prepared(tmp_path)
    edit_cases(cases, Painter(), run, tmp_path / "run")
    items = items_of(cases, BENCH, tmp_path / "run")
    assert summarise(cases, BENCH, items)["judges"] == {}
    found = compare(items, items)
    assert set(found["figures"]) == {"region_share", "outside_psnr_db", "outside_ssim", "outside_delta_e"}
    with pytest.raises(ValueError, match="judged by nobody yet"):
        compare(items, items, "vlm:m")


def test_the_page_stands_alone(tmp_path: Path) -> None:
    cases, items = finished(tmp_path, repeats=2)
    told = {**read_run(tmp_path / "run"), "editor_name": "painter & co", "repeats": 2}
    path = write_report(BENCH, {"run": told, **summarise(cases, BENCH, items)}, items, tmp_path / "run")
    page = path.read_text()
    assert "painter &amp; co" in page and "it was to fail" in page and "The worst items" in page
    assert "brightest" in page and page.count("data:image/png") == 8  # 4 edits of the first repeat, best and worst
    assert "http" not in page.replace("http://www.w3.org", "")


def test_best_and_worst_items(tmp_path: Path) -> None:
    _, items = finished(tmp_path)
    best, worst = (choose_items(items, "brightness", best=best, count=2) for best in (True, False))
    assert {item["case"] for item in best} == {"part/0", "part/4"}
    assert {item["case"] for item in worst} == {"part/2", "part/3"}
    assert [item["case"] for item in choose_items(items, None, best=True, count=1)] == ["part/0"]
    names = ["overall", "a/overall", "items", "a/items", "a/b", "a/b/overall"]
    assert [is_main(name) for name in names] == [True, True, False, False, False, False]


def test_a_model_judges_in_several_threads(tmp_path: Path) -> None:
    from chronoedit.evaluation.judges import open_judge

    cases, run = prepared(tmp_path, ["a"] * 12, baselines=False)
    edit_cases(cases, Painter(), run, tmp_path / "run")
    model = Scripted(name="m", answer=lambda turns, question: scores(len(words_of(turns)) + 3, 2))
    judge_edits(cases, lambda repeat: open_judge("vlm", BENCH, model, repeat), run, tmp_path / "run", workers=3)
    assert model.sent == 12 and {
        verdict.scores["done"] for verdict in read_verdicts(tmp_path / "run")["vlm:m"].values()
    } == {4}


def test_what_a_judge_has_not_seen_does_not_count(tmp_path: Path) -> None:
    cases, run = prepared(tmp_path)
    edit_cases(cases, Painter(), run, tmp_path / "run")
    judge_edits(cases[:1], lambda repeat: Brightness(), run, tmp_path / "run")
    items = items_of(cases, BENCH, tmp_path / "run")
    summary = summarise(cases, BENCH, items)["judges"]["brightness"]
    assert (summary["editor"]["judged"], summary["editor"]["not_judged"]) == (1, 3)
    assert summary["editor"]["strict"]["items"]["value"] == 2  # it, and the one that failed
    assert (summary["noise"]["judged"], summary["noise"]["not_judged"]) == (1, 4)
    nothing = summarise(cases, BENCH, [item for item in items if item["case"] != "part/0" or item["row"] != "noise"])
    assert nothing["judges"]["brightness"]["noise"]["strict"] == {}
    assert [item["figures"] for item in items if item["case"] == "part/2"] == [{}, {}, {}]


def test_references_are_kept_and_shown(tmp_path: Path) -> None:
    from chronoedit.evaluation.judges import open_judge

    cases = list(BENCH.read(write_data(tmp_path, ["turn it", "lift it"], references=True)))
    run = BenchRun(bench="fake", data=data_fingerprint(cases), editor={})
    folder = tmp_path / "run"
    claim(folder, run)
    edit_cases(cases, Painter(), run, folder)
    judge_edits(cases, lambda repeat: open_judge("reference", BENCH, None, repeat), run, folder)
    edit = read_edits(folder)[edit_key("part/1", "editor", 0)]
    assert np.array_equal(np.asarray(Image.open(folder / str(edit.reference))), Image.open(tmp_path / "1-after.png"))
    assert edit.objective is not None and edit.objective["region_from"] == "reference"
    assert edit.objective["outside_delta_e"] == 0 and edit.objective["reference_delta_e"] < 0.5
    items = items_of(cases, BENCH, folder)
    rows = summarise(cases, BENCH, items)["judges"]["reference"]
    assert rows["editor"]["strict"]["done"]["value"] > 4.8 and rows["copy"]["strict"]["done"]["value"] == 1
    told = {**read_run(folder), "editor_name": "painter", "repeats": 1}
    page = write_report(BENCH, {"run": told, **summarise(cases, BENCH, items)}, items, folder).read_text()
    assert "from the reference in 2 edits" in page
