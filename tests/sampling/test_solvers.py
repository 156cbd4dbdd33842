from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from chronoedit.sampling.loop import denoise
from chronoedit.sampling.schedules import flow_sigmas
from chronoedit.sampling.solvers import SOLVERS, SolverState, solver_named

SHAPE = (2, 3, 5, 4, 4)  # b c t h w
Field = Callable[[torch.Tensor, float, int], torch.Tensor]


def gaussian_velocity(mean: float, std: float) -> tuple[Field, Callable[[torch.Tensor, float, float], torch.Tensor]]:
    """The exact flow of data drawn from N(mean, std²): x keeps its quantile, so the answer is known at every sigma."""

    def spread(sigma: float) -> float:
        return math.sqrt(((1 - sigma) * std) ** 2 + sigma**2)

    def velocity(x: torch.Tensor, sigma: float, step: int) -> torch.Tensor:
        growth = (sigma - (1 - sigma) * std**2) / spread(sigma) ** 2
        return -mean + growth * (x - (1 - sigma) * mean)

    def solution(x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        return (1 - sigma_next) * mean + spread(sigma_next) / spread(sigma) * (x - (1 - sigma) * mean)

    return velocity, solution


def framewise_velocity(x: torch.Tensor, sigma: float, step: int) -> torch.Tensor:
    """Nonlinear, different at every step, and blind to the other frames."""
    return torch.tanh(x + step) + 0.3 * x.roll(1, dims=-1) - sigma


def noise(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def error_after(solver: str, steps: int, sigmas: torch.Tensor) -> float:
    velocity, solution = gaussian_velocity(mean=0.7, std=0.4)
    x = noise(dtype=torch.float64)
    levels = sigmas.float().tolist()
    state = denoise(velocity, SOLVERS[solver].start(x), sigmas, SOLVERS[solver])
    assert state.step == steps
    return float((state.latents - solution(x, levels[0], levels[-1])).abs().max())


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("unipc", 2)])
def test_convergence_order(solver: str, order: int) -> None:
    errors = [error_after(solver, n, torch.linspace(0.9, 0.1, n + 1, dtype=torch.float64)) for n in (20, 40, 80)]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert math.log2(coarse / fine) > order - 0.15
    assert math.log2(errors[-2] / errors[-1]) < order + 1.3


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_reaches_the_data(solver: str) -> None:
    errors = [error_after(solver, n, flow_sigmas(n, 3.0)) for n in (10, 40)]
    assert errors[1] < errors[0] / 3
    assert errors[1] < {"euler": 0.15, "unipc": 0.01}[solver]


def test_euler_is_exact_on_straight_lines() -> None:
    x, target = noise(1, torch.float64), noise(2, torch.float64)
    solver = SOLVERS["euler"]
    state = denoise(lambda x_t, sigma, step: x - target, solver.start(x), torch.tensor([1.0, 0.6, 0.5, 0.0]), solver)
    torch.testing.assert_close(state.latents, target, atol=1e-7, rtol=0)


def test_unipc_is_exact_when_x0_is_known() -> None:
    x, target = noise(1, torch.float64), noise(2, torch.float64)
    solver = SOLVERS["unipc"]

    def velocity(x_t: torch.Tensor, sigma: float, step: int) -> torch.Tensor:
        return (x_t - target) / sigma

    state = denoise(velocity, solver.start(x), flow_sigmas(3, 5.0), solver)
    torch.testing.assert_close(state.latents, target, atol=1e-9, rtol=0)


def reference_scheduler(num_inference_steps: int, flow_shift: float) -> UniPCMultistepScheduler:
    """As the published checkpoint configures it; the rest are diffusers' defaults (order 2, bh2, lower order last)."""
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift)
    scheduler.set_timesteps(num_inference_steps)
    return scheduler


def close(ours: torch.Tensor, reference: torch.Tensor) -> bool:
    return bool((ours - reference).abs().max() <= 1e-6 * max(1.0, float(reference.abs().max())))


@pytest.mark.parametrize("num_inference_steps", [1, 2, 3, 8, 20, 50])
@pytest.mark.parametrize("flow_shift", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("velocity", [framewise_velocity, lambda x, sigma, step: noise(100 + step)])
def test_unipc_equals_diffusers_step_by_step(num_inference_steps: int, flow_shift: float, velocity: Field) -> None:
    reference, solver, expected = reference_scheduler(num_inference_steps, flow_shift), SOLVERS["unipc"], noise()
    state, sigmas = solver.start(expected), flow_sigmas(num_inference_steps, flow_shift).float().tolist()
    for step, timestep in enumerate(reference.timesteps):
        expected_velocity = velocity(expected, sigmas[step], step)
        expected = reference.step(expected_velocity, timestep, expected, return_dict=False)[0]
        state = solver.step(state, velocity(state.latents, sigmas[step], step), sigmas[step], sigmas[step + 1])
        assert close(state.latents, expected), step


def test_unipc_drop_equals_diffusers_with_its_history_pruned() -> None:
    reference, expected, solver = reference_scheduler(8, 5.0), noise(), SOLVERS["unipc"]
    for step, timestep in enumerate(reference.timesteps):
        if step == 3:
            expected = expected[:, :, [0, -1]]
            reference.model_outputs = [output[:, :, [0, -1]] for output in reference.model_outputs]
            reference.last_sample = reference.last_sample[:, :, [0, -1]]
        velocity = framewise_velocity(expected, float(reference.sigmas[step]), step)
        expected = reference.step(velocity, timestep, expected, return_dict=False)[0]
    state = denoise(framewise_velocity, solver.start(noise()), flow_sigmas(8, 5.0), solver, stop=3)
    state = denoise(framewise_velocity, state.keep_frames((0, -1)), flow_sigmas(8, 5.0), solver, start=3)
    assert close(state.latents, expected)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("drop", [0, 1, 2, 5, 7])
@pytest.mark.parametrize("frames", [(0, -1), (3,), (4, 1, 0)])
def test_keep_frames_before_a_step_equals_the_frames_alone(solver: str, drop: int, frames: tuple[int, ...]) -> None:
    sigmas, chosen = flow_sigmas(8, 5.0), SOLVERS[solver]
    alone = denoise(framewise_velocity, chosen.start(noise()[:, :, list(frames)]), sigmas, chosen)
    whole = denoise(framewise_velocity, chosen.start(noise()), sigmas, chosen, stop=drop)
    dropped = denoise(framewise_velocity, whole.keep_frames(frames), sigmas, chosen, start=drop)
    torch.testing.assert_close(dropped.latents, alone.latents, atol=2e-6, rtol=0)
    full = denoise(framewise_velocity, whole, sigmas, chosen, start=drop)
    torch.testing.assert_close(full.latents[:, :, list(frames)], alone.latents, atol=2e-6, rtol=0)


def test_keep_frames_prunes_every_tensor_and_leaves_the_state_alone() -> None:
    solver = SOLVERS["unipc"]
    state = denoise(framewise_velocity, solver.start(noise()), flow_sigmas(8, 5.0), solver, stop=4)
    pruned = state.keep_frames((0, -1))
    tensors, before = [[s.latents, *s.outputs, s.last_sample] for s in (pruned, state)]
    assert len(tensors) == 4
    for tensor, whole in zip(tensors, before, strict=True):
        assert torch.equal(tensor, whole[:, :, [0, -1]])
    assert (pruned.sigmas, pruned.order, pruned.step) == (state.sigmas, state.order, state.step)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_step_is_pure(solver: str) -> None:
    chosen = SOLVERS[solver]
    state = denoise(framewise_velocity, chosen.start(noise()), flow_sigmas(8, 5.0), chosen, stop=3)
    velocity = framewise_velocity(state.latents, 0.9, 3)
    copies = [tensor.clone() for tensor in (state.latents, *state.outputs, velocity)]
    first, second = (chosen.step(state, velocity, 0.9, 0.8) for _ in range(2))
    assert torch.equal(first.latents, second.latents)
    for tensor, copy in zip((state.latents, *state.outputs, velocity), copies, strict=True):
        assert torch.equal(tensor, copy)


def test_keeps_the_precision_of_the_latents() -> None:
    for solver in SOLVERS.values():
        state = solver.step(solver.start(noise()), noise(1).bfloat16(), 0.9, 0.8)
        assert state.latents.dtype == torch.float32


def test_noise_level_one_is_finite() -> None:
    solver = SOLVERS["unipc"]
    levels = torch.tensor([1.0, 0.7, 0.4, 0.1, 0.0])
    assert denoise(framewise_velocity, solver.start(noise()), levels, solver).latents.isfinite().all()


def test_unknown_solver_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="unipc, euler"):
        solver_named("heun")
    assert solver_named("unipc") is SOLVERS["unipc"]


def test_start_holds_no_history() -> None:
    state = SOLVERS["unipc"].start(noise())
    assert state == SolverState(latents=state.latents)
