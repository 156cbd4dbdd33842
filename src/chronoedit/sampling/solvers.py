"""Solvers of the flow's equation dx/dσ = velocity(x, σ), each a pure function of its state.

All history is in `SolverState`, so dropping the reasoning frames in the middle of a run is one call of `keep_frames`.
A new solver is a function `(state, velocity, sigma, sigma_next) -> SolverState` and a line in `SOLVERS`.

Shapes: b batch, c channels, t latent frames, h w latent height and width. Latents are x = (1 − σ)·x₀ + σ·ε.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, kw_only=True)
class SolverState:
    """Where a run stands: the latents and all that a multistep solver remembers.

    `latents`, each of `outputs` and `last_sample` are `b c t h w`. `outputs` are the latest predictions of x₀, oldest
    first, and `sigmas` the noise levels they were made at. `last_sample` is the (corrected) sample that the latest
    predictor step left from, `order` that step's order, `step` the number of steps done.
    """

    latents: torch.Tensor
    outputs: tuple[torch.Tensor, ...] = ()
    sigmas: tuple[float, ...] = ()
    last_sample: torch.Tensor | None = None
    order: int = 0
    step: int = 0

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> SolverState:
        """The state with `change` done to every tensor, history included: a cut, a move to another device."""
        return replace(
            self,
            latents=change(self.latents),
            outputs=tuple(change(output) for output in self.outputs),
            last_sample=None if self.last_sample is None else change(self.last_sample),
        )

    def keep_frames(self, frames: Sequence[int]) -> SolverState:
        """The state with only these latent frames (negative counts from the end) in every tensor of the history."""
        index = torch.arange(self.latents.shape[-3], device=self.latents.device)[list(frames)]
        return self.map(lambda tensor: tensor.index_select(-3, index))  # b c t h w


Step = Callable[[SolverState, torch.Tensor, float, float], SolverState]


@dataclass(frozen=True)
class Solver:
    """A named solver: `start` makes the state of a run, `step` moves it from `sigma` to `sigma_next`."""

    name: str
    step: Step

    def start(self, latents: torch.Tensor) -> SolverState:
        """The state of a run that begins at these latents, `b c t h w`."""
        return SolverState(latents=latents)


def euler(state: SolverState, velocity: torch.Tensor, sigma: float, sigma_next: float) -> SolverState:
    """Euler's method: first order, no history."""
    latents = state.latents + (sigma_next - sigma) * velocity.to(state.latents.dtype)
    return replace(state, latents=latents, step=state.step + 1)


def unipc(state: SolverState, velocity: torch.Tensor, sigma: float, sigma_next: float) -> SolverState:
    """UniPC (arXiv 2302.04867, algorithms 5 and 6): order 2, B₂(h), x₀ prediction, first order into σ = 0.

    Agrees with diffusers' UniPCMultistepScheduler (flow prediction, order 2, bh2, lower order at the end).
    """
    output = state.latents - sigma * velocity.to(state.latents.dtype)
    sample = _correct(state, output, sigma) if state.outputs else state.latents
    outputs, sigmas = (*state.outputs[-1:], output), (*state.sigmas[-1:], sigma)
    order = 1 if sigma_next == 0 else len(outputs)
    return SolverState(
        latents=_predict(sample, outputs[-order:], sigmas[-order:], sigma_next),
        outputs=outputs,
        sigmas=sigmas,
        last_sample=sample,
        order=order,
        step=state.step + 1,
    )


SOLVERS: dict[str, Solver] = {solver.name: solver for solver in (Solver("unipc", unipc), Solver("euler", euler))}


def solver_named(name: str) -> Solver:
    """The solver of this name. Raises ValueError, listing the choices, when there is none."""
    if name not in SOLVERS:
        raise ValueError(f"there is no solver {name!r}; choose from {', '.join(SOLVERS)}")
    return SOLVERS[name]


def _half_log_snr(sigma: float) -> torch.Tensor:
    """λ(σ) = log((1 − σ)/σ), infinite at the ends.

    A float32 scalar, and so are the weights made from it, as in the published scheduler: exact weights would drift
    from it by 1e-6 in 50 steps.
    """
    level = torch.tensor(sigma, dtype=torch.float32)
    return torch.log(1 - level) - torch.log(level)


def _first_order(
    sample: torch.Tensor, output: torch.Tensor, sigma: float, sigma_next: float, h: torch.Tensor
) -> torch.Tensor:
    """The exact step from σ to σ' when the prediction of x₀ stays what it is."""
    return sigma_next / sigma * sample - (1 - sigma_next) * torch.expm1(-h) * output


def _predict(
    sample: torch.Tensor, outputs: tuple[torch.Tensor, ...], sigmas: tuple[float, ...], sigma_next: float
) -> torch.Tensor:
    """UniP: the first-order step, and with two outputs a correction for the slope between them."""
    h = _half_log_snr(sigma_next) - _half_log_snr(sigmas[-1])
    latents = _first_order(sample, outputs[-1], sigmas[-1], sigma_next, h)
    if len(outputs) == 2:
        ratio = (_half_log_snr(sigmas[-2]) - _half_log_snr(sigmas[-1])) / h
        slope = (outputs[-2] - outputs[-1]) / ratio
        latents = latents - 0.5 * (1 - sigma_next) * torch.expm1(-h) * slope
    return latents


def _correct(state: SolverState, output: torch.Tensor, sigma: float) -> torch.Tensor:
    """UniC: take the last predictor step again, now that x₀ is also predicted at its end."""
    assert state.last_sample is not None
    origin, latest = state.sigmas[-1], state.outputs[-1]
    h = _half_log_snr(sigma) - _half_log_snr(origin)
    slopes = 0.5 * (output - latest)
    if state.order == 2:
        ratio = (_half_log_snr(state.sigmas[-2]) - _half_log_snr(origin)) / h
        past, present = _corrector_weights(h, ratio)
        slopes = past / ratio * (state.outputs[-2] - latest) + present * (output - latest)
    return _first_order(state.last_sample, latest, origin, sigma, h) - (1 - sigma) * torch.expm1(-h) * slopes


def _corrector_weights(h: torch.Tensor, ratio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The ρ of UniC-2 with B₂(h) = e^(−h) − 1: the solution of ρ₁ + ρ₂ = b₁, r·ρ₁ + ρ₂ = b₂."""
    growth = torch.expm1(-h)
    phi_2 = growth / -h - 1
    phi_3 = phi_2 / -h - 0.5
    first, second = phi_2 / growth, 2 * phi_3 / growth
    past = (first - second) / (1 - ratio)
    return past, first - past
