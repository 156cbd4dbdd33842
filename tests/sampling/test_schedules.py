from __future__ import annotations

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from chronoedit.sampling.schedules import flow_sigmas, shift, timesteps


@pytest.mark.parametrize("num_inference_steps", [1, 2, 3, 8, 9, 27, 37, 50, 999])
@pytest.mark.parametrize("flow_shift", [1.0, 2.0, 3.0, 5.0, 7.5])
def test_equal_to_diffusers(num_inference_steps: int, flow_shift: float) -> None:
    reference = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift)
    reference.set_timesteps(num_inference_steps)
    sigmas = flow_sigmas(num_inference_steps, flow_shift)
    assert torch.equal(sigmas.float(), reference.sigmas)
    assert torch.equal(timesteps(sigmas, integer=True), reference.timesteps)


def test_ends_and_order() -> None:
    sigmas = flow_sigmas(8, 2.0)
    assert sigmas[0] == 1 - 1e-6 and sigmas[-1] == 0
    assert bool((sigmas.diff() < 0).all())
    expected = torch.tensor([1, 0.933, 0.857, 0.770, 0.667, 0.546, 0.401, 0.224, 0], dtype=torch.float64)
    torch.testing.assert_close(sigmas, expected, atol=2e-3, rtol=0)


def test_shift() -> None:
    assert shift(0.5, 1.0) == 0.5
    assert shift(0.5, 3.0) == 0.75
    assert shift(1.0, 5.0) == 1.0 and shift(0.0, 5.0) == 0.0


def test_real_timesteps() -> None:
    sigmas = flow_sigmas(4, 5.0)
    torch.testing.assert_close(timesteps(sigmas, integer=False), 1000 * sigmas[:-1])
    assert flow_sigmas(4, 5.0, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize(("steps", "flow_shift"), [(0, 5.0), (4, 0.0), (4, -1.0), (4, float("inf")), (4, float("nan"))])
def test_refuses(steps: int, flow_shift: float) -> None:
    with pytest.raises(ValueError, match="below 1" if steps < 1 else "finite number above 0"):
        flow_sigmas(steps, flow_shift)
