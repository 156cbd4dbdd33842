"""Stopped and resumed equals not stopped, to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from chronoedit.errors import CheckpointError
from chronoedit.training.optim import Ema, make_optimizer, update
from chronoedit.training.recipes import Budget, Optimisation
from chronoedit.training.state import LOG_FILE, STATE_FILE, Progress, Stage, TrainingState, step_generator

RECIPE = Optimisation(learning_rate=1e-2, warmup_steps=2, ema_decay=0.9)


def fresh(width: int = 3) -> TrainingState:
    torch.manual_seed(0)
    module = nn.Linear(width, width)
    return TrainingState({"m": module}, {"m": Ema(module, 0.9)}, make_optimizer([module], RECIPE), Progress())


def stage(state: TrainingState, folder: Path, steps: int, *, stop_at: int | None = None) -> Stage:
    module = state.modules["m"]

    def step(index: int, progress: float) -> dict[str, float]:
        if index == stop_at:
            raise KeyboardInterrupt
        inputs = torch.randn(5, 3, generator=step_generator(7, index, "test"))
        loss = (module(inputs) - inputs.flip(1)).square().mean()
        loss.backward()
        update(state.optimizer, RECIPE, index, index / steps)
        state.averages["m"].update(index)
        return {"loss": loss.item()}

    return Stage(
        state=state,
        budget=Budget(max_steps=steps),
        folder=folder,
        train_step=step,
        validate=lambda: {"weight": float(module.weight.detach().sum())},
        checkpoint_every_s=0.0,
        validate_every_s=0.0,
        log=lambda record: None,
    )


def test_the_end_is_saved_though_its_step_was_validated(tmp_path: Path) -> None:
    replace(stage(fresh(), tmp_path, 3), checkpoint_every_s=1e9).run()
    again = fresh()
    assert again.load(tmp_path)
    assert again.progress.step == 3


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = fresh()
    stage(whole, tmp_path / "whole", 8).run()
    first = fresh()
    with pytest.raises(KeyboardInterrupt):
        stage(first, tmp_path / "parts", 8, stop_at=5).run()
    second = fresh()
    assert second.load(tmp_path / "parts")
    assert second.progress.step == 5
    stage(second, tmp_path / "parts", 8).run()
    assert torch.equal(whole.modules["m"].weight, second.modules["m"].weight)
    assert torch.equal(whole.averages["m"].average["bias"], second.averages["m"].average["bias"])
    records = [json.loads(line) for line in (tmp_path / "parts" / LOG_FILE).read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == list(range(1, 9))


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    state = fresh()
    stage(state, tmp_path, 3).run()
    before = (tmp_path / LOG_FILE).read_text()
    again = fresh()
    again.load(tmp_path)
    stage(again, tmp_path, 3).run()
    assert (tmp_path / LOG_FILE).read_text() == before


def test_nothing_saved_is_a_fresh_start(tmp_path: Path) -> None:
    state = fresh()
    assert not state.load(tmp_path)
    assert state.progress == Progress()


def test_damaged_or_foreign_states_are_refused(tmp_path: Path) -> None:
    stage(fresh(), tmp_path, 2).run()
    with pytest.raises(CheckpointError, match="does not continue this run"):
        fresh(width=4).load(tmp_path)
    (tmp_path / STATE_FILE).write_bytes((tmp_path / STATE_FILE).read_bytes()[:200])
    with pytest.raises(CheckpointError, match="does not continue this run"):
        fresh().load(tmp_path)


def test_generators_differ_by_seed_step_and_purpose() -> None:
    draws = {
        torch.randn((), generator=step_generator(*key)).item()
        for key in ((0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"))
    }
    assert len(draws) == 4
    same = [torch.randn((), generator=step_generator(3, 4, "x")).item() for _ in range(2)]
    assert same[0] == same[1]


def test_samples_take_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("chronoedit.training.state.time.perf_counter", lambda: clock[0])
    drawn: list[int] = []

    def step(at: int, progress: float) -> dict[str, float]:
        clock[0] += 10
        return {}

    def sample(done: int) -> None:
        clock[0] += 5
        drawn.append(done)

    module = torch.nn.Linear(1, 1)
    state = TrainingState({"m": module}, {}, make_optimizer([module], Optimisation(learning_rate=1.0)), Progress())
    Stage(
        state=state,
        budget=Budget(max_steps=40),
        folder=tmp_path,
        train_step=step,
        validate=dict,
        checkpoint_every_s=1e9,
        validate_every_s=1e9,
        log=lambda record: None,
        on_sample=sample,
        sample_every_s=20,
    ).run()
    assert drawn == [2, 12, 22, 32, 40]  # every 20 s at first, then every 100 s, and at the end
