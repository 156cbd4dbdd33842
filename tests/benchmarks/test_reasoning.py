"""What reasoning buys: the comparison on a random model, and its figures where the truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import reasoning as benchmark
from chronoedit.errors import OutputError
from chronoedit.evaluation.summary import MOVING_FAMILIES
from chronoedit.model.random_checkpoint import write_random_checkpoint
from chronoedit.world import SCENES, sample_item


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> benchmark.Options:
    folder = tmp_path_factory.mktemp("reasoning")
    model = write_random_checkpoint(folder / "model", image_branch=False)
    (folder / "page.md").write_text("<!-- reasoning: begin -->\nold\n<!-- reasoning: end -->\n")
    options = benchmark.Options(
        output=folder / "out", model=str(model), items=3, num_inference_steps=5, update=folder / "page.md"
    )
    benchmark.main(options)
    return options


def test_each_share_edits_the_moving_items_of_the_benchmark(finished: benchmark.Options) -> None:
    made = json.loads((finished.output / "reasoning.json").read_text())
    moving = [seed for seed in range(100_000, 100_003) if sample_item(seed).family in MOVING_FAMILIES]
    assert made["items"] == len(moving) > 0
    assert [group["reasoning_steps"] for group in made["shares"].values()] == [0, 1, 2, 5]
    for steps in (0, 1, 2, 5):
        lines = [json.loads(line) for line in (finished.output / f"{steps}.jsonl").read_text().splitlines()]
        assert [line["seed"] for line in lines] == moving and all(line["seconds"] > 0 for line in lines)
    assert finished.update is not None
    page = finished.update.read_text()
    assert "old" not in page and "| a fifth (1 of 5) |" in page and "By family, in points" in page


def test_a_finished_run_edits_nothing_and_another_model_is_refused(
    finished: benchmark.Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = (finished.output / "reasoning.json").read_text()
    monkeypatch.setattr(benchmark, "attempts", lambda *_: pytest.fail("an item was edited again"))
    benchmark.main(finished)
    assert (finished.output / "reasoning.json").read_text() == before
    other = write_random_checkpoint(tmp_path / "other", image_branch=False, seed=1)
    with pytest.raises(OutputError, match="model"):
        benchmark.main(benchmark.Options(output=finished.output, model=str(other), items=3, num_inference_steps=5))


def record(seed: int, success: bool, error: float | None, seconds: float) -> dict[str, Any]:
    family = "table" if seed % 2 else "falling"
    return {"seed": seed, "family": family, "success": success, "position_error": error, "seconds": seconds}


def test_differences_are_paired_item_by_item() -> None:
    plain = [record(seed, seed < 4, 0.5, 1.0) for seed in range(8)]
    better = [record(seed, seed < 6, None if seed == 7 else 0.25, 2.0) for seed in range(8)]
    found = {"none": plain, "a fifth": better, "two fifths": plain, "all": plain[::-1][::-1]}
    made = benchmark.figures(found, 10)
    fifth = made["shares"]["a fifth"]
    assert fifth["success"] == 0.75 and fifth["less_none"]["difference"] == 0.25
    assert fifth["position_error"]["mean"] == 0.25 and fifth["position_error"]["items"] == 7 and fifth["seconds"] == 2.0
    assert made["shares"]["all"]["less_none"]["interval"] == [0.0, 0.0]
    assert {name: groups["a fifth"]["less_none"]["difference"] for name, groups in made["families"].items()} == {
        "table": 0.25,
        "falling": 0.25,
    }
    assert "| a fifth (2 of 10) | 75.0% (" in benchmark.by_share(made)
    assert benchmark.by_family(made).count("\n") == 3


def test_shares_are_whole_steps_and_never_none_for_some() -> None:
    assert list(benchmark.steps_of(16).values()) == [0, 3, 6, 16]
    assert list(benchmark.steps_of(2).values()) == [0, 1, 1, 2]


def test_moving_families_are_families() -> None:
    assert set(MOVING_FAMILIES) < set(SCENES)
