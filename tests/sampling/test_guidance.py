from __future__ import annotations

import pytest
import torch

from chronoedit.sampling.guidance import guide, guided_until, is_guided, scales


def test_one_scale_serves_all_steps() -> None:
    assert scales(5, 3) == [5.0, 5.0, 5.0]
    assert scales([5.0, 3.0, 1.0], 3) == [5.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("given", "message"), [([5.0, 3.0], "2 guidance scales for 3 steps"), (0.5, "at least 1"), (float("nan"), "finite")]
)
def test_refuses(given: float | list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scales(given, 3)


def test_guide() -> None:
    cond, uncond = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    torch.testing.assert_close(guide(cond, uncond, 5.0), torch.tensor([5.0, -6.0]))
    torch.testing.assert_close(guide(cond, uncond, 1.0), cond)
    assert guide(cond.bfloat16(), uncond.bfloat16(), 5.0).dtype == torch.float32
    assert guide(cond.double(), uncond.double(), 5.0).dtype == torch.float64
    assert is_guided(1.5) and not is_guided(1.0)


def test_guided_until() -> None:
    assert guided_until([5.0] * 4, 1.0) == [5.0] * 4
    assert guided_until([5.0] * 4, 0.5) == [5.0, 5.0, 1.0, 1.0]
    assert guided_until([5.0] * 4, 0.01) == [5.0, 1.0, 1.0, 1.0]
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="not in"):
            guided_until([5.0], share)
