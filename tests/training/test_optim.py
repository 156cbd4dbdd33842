"""Learning rate, gradients in parts, and the average of the weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from chronoedit.training.optim import Ema, learning_rate, make_optimizer, set_gradients, update
from chronoedit.training.recipes import Optimisation

RECIPE = Optimisation(learning_rate=1e-2, warmup_steps=10, weight_decay=0.5, grad_clip=1.0)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def test_rate_warms_up_and_falls_to_nothing() -> None:
    assert learning_rate(RECIPE, 0, 0.0) == pytest.approx(1e-3)
    assert learning_rate(RECIPE, 9, 0.0) == pytest.approx(1e-2)
    assert learning_rate(RECIPE, 99, 0.5) == pytest.approx(5e-3)
    assert learning_rate(RECIPE, 99, 1.0) == 0


def test_norms_and_biases_are_not_decayed() -> None:
    module = model()
    decayed, others = make_optimizer([module], RECIPE).param_groups
    assert decayed["weight_decay"] == 0.5
    assert others["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {id(module[0].weight), id(module[2].weight)}


def test_frozen_parameters_are_left_out() -> None:
    module = model()
    module[0].requires_grad_(False)
    optimizer = make_optimizer([module], RECIPE)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    assert len(Ema(module, 0.9).average) == 4


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_gradients_in_parts_are_those_of_the_whole(parts: int) -> None:
    module, inputs = model(), torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    unused = nn.Linear(2, 2)
    optimizer = make_optimizer([module, unused], RECIPE)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        return module(rows).square().mean()

    losses = set_gradients([partial(loss_of, rows) for rows in inputs.chunk(parts)], optimizer)
    found = [p.grad.clone() for p in module.parameters()]
    optimizer.zero_grad()
    whole = loss_of(inputs)
    whole.backward()
    assert torch.stack(losses).mean() == pytest.approx(whole.item(), rel=1e-5)
    assert all(torch.allclose(a, p.grad, atol=1e-6) for a, p in zip(found, module.parameters(), strict=True))
    assert unused.weight.grad is None


def test_update_clips_steps_and_clears() -> None:
    module = model()
    optimizer = make_optimizer([module], RECIPE)
    before = module[0].weight.detach().clone()
    (1000 * module(torch.ones(1, 4))).square().sum().backward()
    assert update(optimizer, RECIPE, 0, 0.0) > 1
    assert 0 < (module[0].weight - before).abs().max() <= 1e-3 * 1.6
    assert module[0].weight.grad is None


def test_average_follows_and_swaps() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    ema = Ema(module, 0.5)
    nn.init.constant_(module.weight, 3.0)
    ema.update(1000)
    assert ema.average["weight"].item() == 2
    ema.swap()
    assert (module.weight.item(), ema.average["weight"].item()) == (2, 3)
    ema.swap()
    assert module.weight.item() == 3
    ema.update(0)  # the first steps are forgotten: decay 1/10, not 1/2
    assert ema.average["weight"].item() == pytest.approx(2.9)
    with pytest.raises(ValueError, match="differ in weight"):
        ema.load({})
