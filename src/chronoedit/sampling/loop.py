"""The denoising loop."""

from __future__ import annotations

from collections.abc import Callable

import torch

from chronoedit.sampling.solvers import Solver, SolverState

Velocity = Callable[[torch.Tensor, float, int], torch.Tensor]
OnStep = Callable[[int, SolverState], None]


def denoise(
    velocity: Velocity,
    state: SolverState,
    sigmas: torch.Tensor,
    solver: Solver,
    *,
    start: int = 0,
    stop: int | None = None,
    on_step: OnStep | None = None,
) -> SolverState:
    """Run steps `start` to `stop` (all of them by default) of the schedule `sigmas` [N + 1].

    `velocity(latents, sigma, step)` gives dx/dσ in the shape of the latents. `on_step(step, state)` is called after
    each step and may raise to stop the run. Sigmas enter in float32, as in the published scheduler: 1 − σ₀ is 1e-6,
    and its rounding is felt in the second step. Raises ValueError when there are no such steps.
    """
    levels = sigmas.to(torch.float32).tolist()
    total = len(levels) - 1
    stop = total if stop is None else stop
    if not 0 <= start <= stop <= total:
        raise ValueError(f"steps {start} to {stop} of a schedule of {total}; use 0 <= start <= stop <= {total}")
    for step in range(start, stop):
        sigma, sigma_next = levels[step], levels[step + 1]
        state = solver.step(state, velocity(state.latents, sigma, step), sigma, sigma_next)
        if on_step is not None:
            on_step(step, state)
    return state
