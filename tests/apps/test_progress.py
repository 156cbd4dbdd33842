"""What is seen of a training: a view on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from chronoedit.apps.progress import TrainingView

FIRST = {"step": 10, "minutes": 0.5, "loss": 0.5, "grad_norm": 1.25, "lr": 1e-4, "items_per_s": 2.5}
SECOND = {**FIRST, "step": 20, "loss": 0.25, "val_0.2": 0.1, "val_1.0": 0.9, "val_clips_0.8": 0.3}
SECOND |= {"peak_memory_bytes": 2_340_000_000, "eta_s": 90.0}


def on_terminal() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=80, height=30, legacy_windows=False), out


def test_on_a_terminal_the_last_figures_and_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    console, out = on_terminal()
    with TrainingView(console, "LoRA") as view:
        view.on_step(10, 40)
        view.log(FIRST)
        view.on_step(20, 40)
        view.log(SECOND)
        print("result.safetensors")
        print("a note", file=sys.stderr)
    shown = out.getvalue()
    last = shown[shown.rindex("learning rate") :]
    for text in ("0.0001", "1.25", "2.5", "2.34 GB", "at noise 0.2", "0.9", "clips 0.8", "LoRA", "20/40"):
        assert text in last, text
    assert "before 0.5" in shown and "a note" in shown
    assert capsys.readouterr().out == "result.safetensors\n"


def test_a_run_that_goes_on_starts_where_it_stood() -> None:
    console, _ = on_terminal()
    view = TrainingView(console)
    view.on_step(5001, 10000)
    (task,) = view._bars.tasks
    assert task.completed == 5001 and task.speed is None
    view.on_step(5002, 10000)
    assert task.completed == 5002


def test_without_a_terminal_each_record_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingView(Console(file=io.StringIO(), force_terminal=False)) as view:
        view.on_step(1, 2)
        view.log(FIRST)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["step 10  minutes 0.5  loss 0.5  grad_norm 1.25  lr 0.0001  items_per_s 2.5"]
    assert captured.out == ""


def test_the_screen_is_given_back_after_an_error() -> None:
    console, out = on_terminal()
    with pytest.raises(KeyboardInterrupt), TrainingView(console) as view:
        view.on_step(1, 2)
        raise KeyboardInterrupt
    assert out.getvalue().endswith("\x1b[?25h")  # the cursor is shown again
