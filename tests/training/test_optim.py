"""Learning rate, gradients in parts, and the average of the weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from chronoedit.training.optim import Ema, Optimizers, learning_rate, make_optimizer, set_gradients, update
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


def block_model() -> nn.Module:
    torch.manual_seed(0)
    blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
    return nn.ModuleDict({"embedding": nn.Linear(4, 6), "blocks": blocks, "proj_out": nn.Linear(6, 2)})


def block_loss(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    x = module["embedding"](inputs)
    for block in module["blocks"]:
        x = x + block(x).tanh()
    return (module["proj_out"](x) - 1).square().mean()


@pytest.mark.parametrize("parts", [1, 2])
def test_muon_takes_the_matrices_of_blocks_and_moves_them_all_ways(parts: int) -> None:
    module = block_model()
    recipe = replace(RECIPE, optimizer="muon", parts=parts, weight_decay=0.0, warmup_steps=1)
    optimizer = make_optimizer([module], recipe)
    muon = {id(p) for part in optimizer.parts[1:] for group in part.param_groups for p in group["params"]}
    assert len(optimizer.parts) == 1 + parts
    assert muon == {id(block.weight) for block in module["blocks"]}
    before = module["blocks"][0].weight.detach().clone()
    inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    block_loss(module, inputs).backward()
    update(optimizer, recipe, 0, 0.0)
    step = before - module["blocks"][0].weight.detach()
    size = 0.2 * 6**0.5 * recipe.learning_rate  # an orthogonal matrix of the size that AdamW's steps have
    sizes = torch.linalg.svdvals(step) / size  # the gradient's own differ by far more
    assert sizes[:4] == pytest.approx(torch.ones(4), abs=0.35)
    assert sizes.max() < 1.35


def test_muon_learns_and_its_state_continues() -> None:
    inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    recipe = replace(RECIPE, optimizer="muon", parts=2, weight_decay=0.0, warmup_steps=1)

    def run(module: nn.Module, optimizer: Optimizers, steps: range) -> float:
        for step in steps:
            loss = block_loss(module, inputs)
            loss.backward()
            update(optimizer, recipe, step, 0.0)
        return loss.item()

    module = block_model()
    optimizer = make_optimizer([module], recipe)
    first = run(module, optimizer, range(5))
    kept = {name: p.detach().clone() for name, p in module.state_dict().items()}
    state = {i: {n: v.clone() for n, v in slots.items()} for i, slots in optimizer.state_dict()["state"].items()}
    assert run(module, optimizer, range(5, 30)) < 0.5 * first
    resumed = block_model()
    resumed.load_state_dict(kept)
    again = make_optimizer([resumed], recipe)
    again.load_state_dict({"state": state})
    run(resumed, again, range(5, 30))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), resumed.parameters(), strict=True))


def test_modules_with_parameters_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        make_optimizer([model(), model()], RECIPE)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_gradients_in_parts_are_those_of_the_whole(parts: int) -> None:
    module, inputs = model(), torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    unused = nn.Linear(2, 2)
    optimizer = make_optimizer([module, nn.ModuleDict({"unused": unused})], RECIPE)

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
