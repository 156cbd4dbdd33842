"""Which optimisers there are, that each goes on from its state; learning rate, gradients in parts, and the average."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from chronoedit.errors import TrainingError
from chronoedit.training.optim import Ema, Optimizers, learning_rate, make_optimizer, set_gradients, update
from chronoedit.training.optimizer_classes import NOT_USED, torch_optimizers
from chronoedit.training.recipes import Optimisation, recipe_from_dict, recipe_to_dict

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


def test_muon_takes_the_factors_of_blocks() -> None:
    names = ["blocks/0/attn1/to_q/lora_A/default/weight", "blocks/0/attn1/to_q/lora_B/default/weight"]
    others = ["condition_embedder/time_proj/lora_A/default/weight", "proj_out/lora_B/default/weight"]
    factors = nn.Module()
    factors.factors = nn.ParameterDict({name: nn.Parameter(torch.ones(4, 6)) for name in (*names, *others)})
    adamw, muon = make_optimizer([factors], replace(RECIPE, optimizer="muon")).parts
    assert isinstance(adamw, torch.optim.AdamW) and isinstance(muon, torch.optim.Muon)
    assert {id(p) for p in muon.param_groups[0]["params"]} == {id(factors.factors[name]) for name in names}
    for name in others:
        del factors.factors[name]
    assert [type(part) for part in make_optimizer([factors], replace(RECIPE, optimizer="muon")).parts] == [type(muon)]


USABLE = sorted(torch_optimizers().keys() - NOT_USED.keys())
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in USABLE),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("adam", {"amsgrad": True, "betas": [0.8, 0.9]}),
    ("rmsprop", {"momentum": 0.5, "centered": True}),
    ("adamw", {"foreach": True}),
    ("Adafactor", {"eps": [None, 1e-4]}),
]


def test_those_of_torch_are_all_here() -> None:
    assert {"adamw", "sgd", "adafactor", "nadam", "radam", "rprop", "asgd", "muon"} <= set(USABLE)
    for name in NOT_USED:
        with pytest.raises(ValueError, match=f"optimizer '{name}' cannot be used: it"):
            replace(RECIPE, optimizer=name, weight_decay=0.0)


def steps(module: nn.Module, optimizer: Optimizers, recipe: Optimisation, numbers: range) -> None:
    for step in numbers:
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        block_loss(module, inputs).backward()
        update(optimizer, recipe, step, step / 10)


def saved(optimizer: Optimizers, folder: Path) -> dict[str, Any]:
    """An optimiser's state, by way of a file of tensors and one of JSON."""
    state = optimizer.state_dict()
    named = {f"{index}.{slot}": tensor for index, slots in state["state"].items() for slot, tensor in slots.items()}
    save_file({name: tensor.clone() for name, tensor in named.items()}, folder / "tensors")
    (folder / "extra").write_text(json.dumps(state["extra"]))
    read: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(folder / "tensors").items():
        index, slot = name.split(".", 1)
        read.setdefault(int(index), {})[slot] = tensor
    return {"state": read, "extra": json.loads((folder / "extra").read_text())}


def assert_goes_on(recipe: Optimisation, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    whole = block_model().to(dtype)
    optimizer = make_optimizer([whole], recipe)

    def run(module: nn.Module, optimizer: Optimizers, numbers: range) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            steps(module, optimizer, recipe, numbers)

    run(whole, optimizer, range(3))
    weights = {name: p.detach().clone() for name, p in whole.state_dict().items()}
    state = saved(optimizer, folder)
    run(whole, optimizer, range(3, 6))
    resumed = block_model().to(dtype)
    resumed.load_state_dict(weights)
    again = make_optimizer([resumed], recipe)
    again.load_state_dict(state)
    run(resumed, again, range(3, 6))
    moved = [not torch.equal(a, weights[name]) for name, a in whole.named_parameters()]
    assert any(moved)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_goes_on_to_the_bit(name: str, arguments: dict[str, Any], dtype: torch.dtype, tmp_path: Path) -> None:
    decay = 0.0 if name == "rprop" else 0.1
    recipe = replace(RECIPE, optimizer=name, optimizer_args=arguments, warmup_steps=2, weight_decay=decay)
    assert_goes_on(recipe, tmp_path, dtype)


class Peculiar(torch.optim.Optimizer):
    """Keeps its state in every place and form that there is: numbers, lists, nested tensors, its groups."""

    def __init__(
        self, params: Any, lr: float = 1e-3, scale: tuple[float, ...] = (1.0,), weight_decay: float = 0
    ) -> None:
        super().__init__(params, {"lr": lr, "scale": scale, "weight_decay": weight_decay, "count": 0, "size": None})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        for group in self.param_groups:
            group["count"] += 1
            group["size"] = torch.tensor(float(group["count"]), dtype=torch.float64)
            for p in group["params"]:
                state = self.state[p]
                state["calls"] = state.get("calls", 0) + 1
                state["last"] = (None, float(p.grad.abs().sum()), "text")
                state["past"] = [*state.get("past", [])[-1:], {"grad": p.grad.double().clone()}]
                size = sum(float(each["grad"].abs().mean()) for each in state["past"]) + state["last"][1]
                p -= group["lr"] * p.grad * (state["calls"] + group["count"] + float(group["size"])) / (1 + size)


class Unsaveable(Peculiar):
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["odd"] = object()


class ScheduleFree(Peculiar):
    def train(self) -> None: ...
    def eval(self) -> None: ...


class NeedsClosure(Peculiar):
    def step(self, closure: Callable[[], Any]) -> None: ...


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> str:
    module = types.ModuleType("other_optimizers")
    for each in (Peculiar, Unsaveable, ScheduleFree, NeedsClosure, WithoutRate):
        setattr(module, each.__name__, each)
    module.function = lambda: None
    monkeypatch.setitem(sys.modules, "other_optimizers", module)
    return "other_optimizers"


def test_a_class_of_another_package_goes_on_to_the_bit(package: str, tmp_path: Path) -> None:
    recipe = replace(RECIPE, optimizer=f"{package}.Peculiar", optimizer_args={"scale": [1.0, 2.0]})
    optimizer = make_optimizer([model()], recipe)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert optimizer.param_groups[0]["scale"] == (1.0, 2.0)
    assert_goes_on(recipe, tmp_path)


def test_what_cannot_be_saved_says_so(package: str) -> None:
    optimizer = make_optimizer([model()], replace(RECIPE, optimizer=f"{package}.Unsaveable"))
    optimizer.step()
    with pytest.raises(TrainingError, match="keeps odd as a object, which cannot be saved"):
        optimizer.state_dict()


def test_the_state_of_others_is_refused() -> None:
    optimizer = make_optimizer([model()], RECIPE)
    with pytest.raises(ValueError, match=r"the saved optimiser has other parameters: \[17\]"):
        optimizer.load_state_dict({"state": {17: {"step": torch.zeros(())}}})


def test_betas_only_where_two_are_taken() -> None:
    recipe = replace(RECIPE, beta1=0.7, beta2=0.8, weight_decay=0.0)
    assert make_optimizer([model()], replace(recipe, optimizer="nadam")).param_groups[0]["betas"] == (0.7, 0.8)
    own = replace(recipe, optimizer="NAdam", optimizer_args={"betas": [0.1, 0.2]})
    assert make_optimizer([model()], own).param_groups[0]["betas"] == (0.1, 0.2)
    assert "betas" not in make_optimizer([model()], replace(recipe, optimizer="sgd")).param_groups[0]


@pytest.mark.parametrize("name", ["sgd", "adafactor", "torch.optim.RAdam"])
def test_norms_and_biases_are_decayed_by_none(name: str) -> None:
    module = model()
    decayed, others = make_optimizer([module], replace(RECIPE, optimizer=name)).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(module[0].weight), id(module[2].weight)}


def test_a_name_is_one_in_any_case_and_arguments_are_a_table() -> None:
    values = {"learning_rate": 1e-3, "optimizer": "SGD", "optimizer_args": {"momentum": 0.9}}
    recipe = recipe_from_dict(Optimisation, values)
    assert recipe.optimizer == "sgd" and recipe == replace(recipe, optimizer="Sgd")
    assert recipe_from_dict(Optimisation, json.loads(json.dumps(recipe_to_dict(recipe)))) == recipe
    with pytest.raises(ValueError, match=r"optimizer_args is \[1\]; expected a table"):
        recipe_from_dict(Optimisation, {"learning_rate": 1e-3, "optimizer_args": [1]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgdm"}, r"'sgdm' is unknown; choose one of adadelta, .*sgd, or give package\.module\.Class"),
        ({"optimizer": "no_such_thing.Adam"}, r"there is no module no_such_thing; install the package that has it"),
        ({"optimizer": "torch.nowhere.Adam"}, r"there is no module torch\.nowhere; install"),
        ({"optimizer": "torch.optim.Adan"}, r"torch\.optim has no Adan; the optimisers there are ASGD, .*AdamW"),
        ({"optimizer": "other_optimizers.function"}, r"function .* is no torch\.optim\.Optimizer; .* are NeedsClosure"),
        ({"optimizer": "other_optimizers.NeedsClosure"}, r"cannot be used: its step computes the loss again"),
        ({"optimizer": "other_optimizers.ScheduleFree"}, r"cannot be used: it has other weights for evaluation"),
        ({"optimizer": "other_optimizers.WithoutRate"}, r"cannot be used: it takes no lr"),
        ({"optimizer": "sgd", "optimizer_args": {"moment": 1}}, r"'sgd' takes no moment; its arguments are momentum, "),
        ({"optimizer": "sgd", "optimizer_args": {"momentum": -1}}, r"'sgd' refuses .*Invalid momentum"),
        ({"optimizer_args": {"lr": 1e-3}}, r"optimizer_args has lr, which is set by learning_rate; leave it out"),
        ({"optimizer_args": {"eps": torch.ones(())}}, r"cannot be written as JSON"),
        ({"optimizer": "rprop"}, r"'rprop' has no weight decay; set weight_decay = 0, or choose another"),
    ],
)
def test_what_cannot_be_is_named(package: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **changes)


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
