"""Blocks that wait in main memory: nothing of them stays on the device, and nothing that is computed changes."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chronoedit.runtime import frozen
from chronoedit.runtime.block_swap import swap_blocks
from chronoedit.runtime.frozen import FrozenLinear, is_quantised
from chronoedit.runtime.quantize import quantize

CPU = torch.device("cpu")


class Device:
    """A stand-in for a device with memory of its own: what is fetched, and made of that, is a copy and watched."""

    def __init__(self) -> None:
        self.as_used = frozen.as_used
        self.fetched: list[weakref.ref[Tensor]] = []
        self.used: list[weakref.ref[Tensor]] = []

    def fetch(self, weight: Tensor, device: torch.device) -> Tensor:
        copy = frozen.each_part(weight, torch.clone)
        self.fetched.append(weakref.ref(copy))
        return copy

    def use(self, weight: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        plain = self.as_used(weight, device, dtype)
        self.used.append(weakref.ref(plain))
        return plain

    @property
    def held(self) -> int:
        return sum(tensor() is not None for tensor in (*self.fetched, *self.used))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    stand_in = Device()
    monkeypatch.setattr(frozen, "fetch", stand_in.fetch)
    monkeypatch.setattr(frozen, "as_used", stand_in.use)
    return stand_in


def waiting(dit: nn.Module) -> list[str]:
    return [name for name, module in dit.named_modules() if isinstance(module, FrozenLinear)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("count", [0, 2, 3])
def test_velocity_and_gradients_are_the_same_to_the_bit(
    make_transformer: Any, gradients: Any, dtype: torch.dtype, checkpointing: bool, count: int
) -> None:
    dit, swapped = make_transformer(dtype), make_transformer(dtype)
    swap_blocks(swapped, count, CPU)
    assert list(swapped.state_dict()) == list(dit.state_dict())
    assert {name.split(".")[1] for name in waiting(swapped)} == {str(k) for k in range(3 - count, 3)}
    if checkpointing:
        dit.enable_gradient_checkpointing()
        swapped.enable_gradient_checkpointing()
    (velocity, wanted), (swapped_velocity, found) = gradients(dit), gradients(swapped)
    assert torch.equal(velocity, swapped_velocity)
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)


@pytest.mark.parametrize("precision", [None, "int8", "fp8"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_fetched_weight_stays(
    make_transformer: Any, inputs: Any, device: Device, checkpointing: bool, precision: str | None
) -> None:
    dit = make_transformer()
    if precision is not None:
        quantize(dit, precision)
    swap_blocks(dit, 2, CPU)
    layers = len(waiting(dit))
    if checkpointing:
        dit.enable_gradient_checkpointing()
    loss = dit(**inputs()).sample.sum()
    assert len(device.fetched) == len(device.used) == layers and device.held == 0
    loss.backward()
    # again for the backward pass and for what is computed again; the prompt needs no gradient, so that the projections
    # of it to keys and values do not either
    assert layers * (2 if checkpointing else 1.5) < len(device.fetched) <= layers * (3 if checkpointing else 2)
    assert device.held == 0


def test_a_layer_that_kept_its_weight_would_be_seen(device: Device) -> None:
    x, weight = torch.ones(2, 3, requires_grad=True), torch.ones(4, 3)
    product = nn.functional.linear(x, device.fetch(weight, CPU))
    assert device.held == 1
    product.sum().backward()
    assert device.held == 0


def test_quantised_weights_wait_as_they_are_stored(make_transformer: Any, gradients: Any) -> None:
    dit, swapped = make_transformer(), make_transformer()
    for each in (dit, swapped):
        quantize(each, "fp8")
    swap_blocks(swapped, 3, CPU)
    assert all(is_quantised(swapped.get_parameter(f"{name}.weight")) for name in waiting(swapped))
    (_, wanted), (_, found) = gradients(dit), gradients(swapped)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_factors_stay_the_tensors_that_the_optimiser_has(make_transformer: Any) -> None:
    dit = make_transformer()
    before = {name: p for name, p in dit.named_parameters() if p.requires_grad}
    swap_blocks(dit, 3, CPU)
    after = {name: p for name, p in dit.named_parameters() if p.requires_grad}
    assert before.keys() == after.keys() and all(before[name] is after[name] for name in before)


def test_what_cannot_be_is_refused(make_transformer: Any) -> None:
    dit = make_transformer()
    with pytest.raises(ValueError, match="4 blocks are to wait in main memory; this transformer has 3, give 0 to 3"):
        swap_blocks(dit, 4, CPU)
    dit.blocks[2].attn1.to_v.base_layer.weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"blocks\.2\.attn1\.to_v\.base_layer\.weight is in training"):
        swap_blocks(dit, 1, CPU)
    assert waiting(dit) == []


@pytest.mark.gpu
def test_on_a_gpu(make_transformer: Any, inputs: Any) -> None:
    device = torch.device("cuda")
    given = {name: tensor.to(device) for name, tensor in inputs().items()}
    found = []
    for count in (0, 3):
        dit = make_transformer()
        swap_blocks(dit, count, device)
        assert {p.device.type for p in dit.parameters() if p.requires_grad} == {"cuda"}
        assert all(dit.get_parameter(f"{name}.weight").is_pinned() for name in waiting(dit))
        dit(**given).sample.square().mean().backward()
        found.append([p.grad for p in dit.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
