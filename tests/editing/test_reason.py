from __future__ import annotations

import pytest
import torch

from chronoedit.editing.reason import drop_reasoning_frames, keep_rows, plan_course
from chronoedit.sampling.solvers import SOLVERS, SolverState

from .conftest import make_request


@pytest.mark.parametrize(
    ("steps", "reasoning_steps", "frames", "drop_at"),
    [(8, None, 5, None), (8, 1, 29, 1), (8, 3, 29, 3), (8, 8, 29, None)],
)
def test_course(steps: int, reasoning_steps: int | None, frames: int, drop_at: int | None) -> None:
    request = make_request(num_inference_steps=steps, num_reasoning_steps=reasoning_steps)
    course = plan_course(request, 29)
    assert (course.num_frames, course.num_steps, course.drop_at, course.trajectory) == (frames, steps, drop_at, False)
    assert course.reasons == (frames == 29)


def test_course_needs_the_defaults() -> None:
    with pytest.raises(ValueError, match="fill in the model's defaults"):
        plan_course(make_request(num_inference_steps=None), 29)
    with pytest.raises(ValueError, match="fill in the model's defaults"):
        plan_course(make_request(reasoning=True), 29)


def run(state: SolverState, solver: str, levels: list[float], velocity: object) -> SolverState:
    for sigma, sigma_next in zip(levels[:-1], levels[1:], strict=True):
        state = SOLVERS[solver].step(state, velocity(state.latents, sigma), sigma, sigma_next)  # type: ignore[operator]
    return state


def framewise(latents: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.sin(latents * 2 + sigma) - latents


@pytest.mark.parametrize("solver", SOLVERS)
def test_dropped_frames_leave_the_others_where_they_would_be(solver: str) -> None:
    """Where the velocity acts frame by frame, dropping frames in the middle of a run changes nothing in the rest."""
    noise = torch.randn(2, 4, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    levels = [0.999, 0.9, 0.75, 0.5, 0.2, 0.0]
    condition_latents = torch.randn(2, 5, 8, 3, 3)
    whole = run(SOLVERS[solver].start(noise), solver, levels[:3], framewise)
    cut, cut_condition = drop_reasoning_frames(whole, condition_latents)
    assert torch.equal(cut_condition, condition_latents[:, :, [0, 7]])
    end = run(whole, solver, levels[2:], framewise).latents[:, :, [0, 7]]
    assert torch.equal(run(cut, solver, levels[2:], framewise).latents, end)


@pytest.mark.parametrize("solver", SOLVERS)
def test_kept_rows_go_on_as_they_would_have(solver: str) -> None:
    noise = torch.randn(3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    levels = [0.999, 0.9, 0.75, 0.5, 0.2, 0.0]
    whole = run(SOLVERS[solver].start(noise), solver, levels[:3], framewise)
    rows = keep_rows(whole, [2, 0])
    assert rows.step == whole.step
    end = run(whole, solver, levels[2:], framewise).latents[[2, 0]]
    assert torch.equal(run(rows, solver, levels[2:], framewise).latents, end)
