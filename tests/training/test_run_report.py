"""The page of a run, from what its folder holds; finished, going on, or killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from chronoedit.errors import OutputError
from chronoedit.training.run_report import chosen_samples, read_log, write_report

RECIPE = {
    "optimisation": {"learning_rate": 1e-4, "optimizer": "adamw"},
    "adapter": {"rank": 8, "alpha": None, "targets": ["q", "v"], "trigger_words": "<blok>"},
    "num_epochs": 5,
    "model": "0123abcd",
    "set": "4567ef",
}


def record(step: int, loss: float, **more: Any) -> str:
    return json.dumps({"step": step, "minutes": step / 10, "loss": loss, "lr": 1e-4, "grad_norm": 1.5, **more})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    more = {"items_per_s": 2.0, "peak_memory_bytes": 3_000_000_000, "val_0.2": 0.1, "val_1.0": 1.2}
    lines = [record(10, 0.9), record(20, 0.8), record(30, 0.7), record(20, 0.75), record(40, 0.5, **more)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    for step in (10, 40):
        path = tmp_path / "samples" / f"step-{step}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), "red").save(path)
    (tmp_path / "lora.safetensors").write_bytes(b"0" * 1_500_000)
    return tmp_path


def test_the_page_tells_what_was_trained_and_how_it_went(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    for text in ("a LoRA of rank 8", "0123abcd", "4567ef", "0.9 → 0.5", "3.00 GB", "optimisation.learning_rate",
                 "&lt;blok&gt;", "q, v", "lora.safetensors", "1.5", "samples/ (2 files)", "at noise 1.0"):  # fmt: skip
        assert text in html, text
    assert html.count("data:image/png;base64,") == 2
    assert html.count("<svg") == 6
    assert html.index("step 40</figcaption>") < html.index("step 10</figcaption>")
    before = (run / "report.html").stat().st_size
    assert write_report(run).stat().st_size == before  # it does not list itself


def test_of_a_step_logged_twice_the_later_counts(run: Path) -> None:
    records, unread = read_log(run / "log.jsonl")
    assert [(each["step"], each["loss"]) for each in records] == [(10, 0.9), (20, 0.75), (30, 0.7), (40, 0.5)]
    assert unread == 0


def test_a_run_that_was_killed_while_it_wrote(run: Path) -> None:
    with open(run / "log.jsonl", "a") as file:
        file.write('{"step": 50, "lo')
    assert read_log(run / "log.jsonl")[1] == 1
    assert "1 lines of the log could not be read" in write_report(run).read_text(encoding="utf-8")


def test_a_run_that_has_just_begun(run: Path) -> None:
    (run / "log.jsonl").write_text(record(1, float("nan")) + "\n")
    html = write_report(run).read_text(encoding="utf-8")
    assert html.count("<svg") == 2  # the loss is no number: learning rate and gradient norm


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="name the folder of a run"):
        write_report(tmp_path)
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(OutputError, match="no record yet"):
        write_report(tmp_path)
    (tmp_path / "log.jsonl").write_text(record(1, 1.0) + "\n")
    with pytest.raises(OutputError, match="recipe.json cannot be read"):
        write_report(tmp_path)


def test_of_many_samples_the_ends_and_some_between(tmp_path: Path) -> None:
    for step in range(5, 505, 5):
        Image.new("RGB", (2, 2)).save(tmp_path / f"step-{step}.png")
    steps = [step for step, _ in chosen_samples(tmp_path)]
    assert len(steps) == 8 and (steps[0], steps[-1]) == (500, 5)
    assert steps == sorted(steps, reverse=True)
    assert chosen_samples(tmp_path / "none") == []
