from __future__ import annotations

import pytest
import torch

from chronoedit.sampling.loop import denoise
from chronoedit.sampling.schedules import flow_sigmas
from chronoedit.sampling.solvers import SOLVERS, SolverState


def velocity(latents: torch.Tensor, sigma: float, step: int) -> torch.Tensor:
    return latents.sin() * (step + 1) + sigma


def start(solver: str = "unipc") -> SolverState:
    latents = torch.randn(1, 2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return SOLVERS[solver].start(latents)


def test_two_parts_are_bit_identical_to_the_whole() -> None:
    sigmas, solver = flow_sigmas(6, 5.0), SOLVERS["unipc"]
    whole = denoise(velocity, start(), sigmas, solver)
    for cut in range(7):
        half = denoise(velocity, start(), sigmas, solver, stop=cut)
        assert half.step == cut
        assert torch.equal(denoise(velocity, half, sigmas, solver, start=cut).latents, whole.latents)


def test_hands_sigma_and_step_to_the_velocity_and_the_state_to_on_step() -> None:
    sigmas, asked, seen = flow_sigmas(4, 2.0), [], []

    def record(latents: torch.Tensor, sigma: float, step: int) -> torch.Tensor:
        asked.append((sigma, step))
        return velocity(latents, sigma, step)

    denoise(record, start(), sigmas, SOLVERS["unipc"], start=1, stop=3, on_step=lambda i, s: seen.append((i, s.step)))
    assert asked == [(float(sigmas[1].float()), 1), (float(sigmas[2].float()), 2)]
    assert seen == [(1, 1), (2, 2)]


def test_on_step_may_stop_the_run() -> None:
    class Enough(Exception):
        pass

    def stop(step: int, state: SolverState) -> None:
        if step == 1:
            raise Enough

    calls = []
    with pytest.raises(Enough):
        denoise(
            lambda latents, sigma, step: calls.append(step) or latents,
            start(),
            flow_sigmas(4, 2.0),
            SOLVERS["euler"],
            on_step=stop,
        )
    assert calls == [0, 1]


@pytest.mark.parametrize(("first", "stop"), [(-1, 2), (3, 2), (0, 5)])
def test_refuses_steps_that_are_not_there(first: int, stop: int) -> None:
    with pytest.raises(ValueError, match="0 <= start <= stop <= 4"):
        denoise(velocity, start(), flow_sigmas(4, 2.0), SOLVERS["unipc"], start=first, stop=stop)
