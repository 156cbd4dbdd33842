"""Blocks in fewer bits: the velocity stays close, and a LoRA gets the gradients of the weights as they are used."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chronoedit.errors import MissingExtraError
from chronoedit.runtime.frozen import is_quantised, stored_bytes
from chronoedit.runtime.quantize import PRECISIONS, check_precision, quantize, stored_error

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ON_CPU = ("bf16", "fp8", "int8")
# relative error of the velocity that is accepted; fp8 has 3 bits behind the point, int8 7 of the greatest of a row
ERRORS = {"bf16": 3e-3, "fp8": 4e-2, "int8": 6e-3}


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def frozen_parts(dit: nn.Module) -> dict[str, Tensor]:
    """The frozen weights as they are used."""
    weights = {name: p.detach() for name, p in dit.named_parameters() if not p.requires_grad}
    return {name: w.dequantize() if is_quantised(w) else w for name, w in weights.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", ON_CPU)
def test_gradients_are_those_of_the_weights_as_used(
    make_transformer: Any, gradients: Any, precision: str, dtype: torch.dtype
) -> None:
    exact, quantised, as_used = (make_transformer(dtype) for _ in range(3))
    quantize(quantised, precision)
    for name, weight in frozen_parts(quantised).items():
        as_used.get_parameter(name).data.copy_(weight)
    wanted_velocity, wanted = gradients(as_used)
    velocity, found = gradients(quantised)
    assert torch.equal(velocity, wanted_velocity)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    unquantised_velocity, unquantised = gradients(exact)
    assert F.cosine_similarity(flat(found), flat(unquantised), dim=0) > 0.999
    error = (velocity - unquantised_velocity).float().norm() / unquantised_velocity.float().norm()
    assert error < ERRORS[precision] + (4e-3 if dtype == torch.bfloat16 else 0)
    quantised.enable_gradient_checkpointing()
    again_velocity, again = gradients(quantised)
    assert torch.equal(again_velocity, velocity) and all(torch.equal(again[name], found[name]) for name in found)


@pytest.mark.parametrize("precision", ON_CPU)
def test_only_linear_weights_of_blocks_change(make_transformer: Any, precision: str) -> None:
    before, dit = make_transformer(lora=False), make_transformer(lora=False)
    names = list(dit.state_dict())
    quantize(dit, precision)
    assert list(dit.state_dict()) == names
    changed = {
        name for name, p in before.named_parameters()
        if is_quantised(dit.get_parameter(name)) or dit.get_parameter(name).dtype != p.dtype
    }  # fmt: skip
    linears = {name for name, module in before.blocks.named_modules() if isinstance(module, nn.Linear)}
    assert changed == {f"blocks.{name}.weight" for name in linears}
    weights = sum(before.get_parameter(name).numel() for name in changed)
    scales = 0 if precision == "bf16" else sum(5 * len(before.get_parameter(name)) for name in changed)
    saved = stored_bytes(before) - stored_bytes(dit)
    assert 0 <= saved - (4 - PRECISIONS[precision].bytes_a_weight) * weights + scales <= scales


@pytest.mark.filterwarnings("ignore:TorchaoLoraLinear was instantiated without:UserWarning")  # no merging here
def test_a_lora_may_come_after(make_transformer: Any, add_lora: Any, gradients: Any) -> None:
    before, after = make_transformer(), make_transformer(lora=False)
    quantize(before, "int8")
    quantize(after, "int8")
    add_lora(after)
    (_, wanted), (_, found) = gradients(before), gradients(after)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("precision", ON_CPU)
def test_nothing_of_a_weight_s_size_waits_for_the_backward_pass(
    make_transformer: Any, inputs: Any, precision: str
) -> None:
    dit = make_transformer()
    quantize(dit, precision)
    linears = [m for m in dit.blocks.modules() if isinstance(m, nn.Linear) and not m.weight.requires_grad]
    sizes = {m.weight.numel() for m in linears}
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        dit(**inputs()).sample.sum().backward()
    assert kept and not [t.shape for t in kept if t.ndim == 2 and t.numel() in sizes]


@pytest.mark.parametrize("precision", ON_CPU)
def test_autocast(make_transformer: Any, inputs: Any, precision: str) -> None:
    dit = make_transformer()
    with torch.autocast("cpu", torch.bfloat16):
        exact = dit(**inputs()).sample
        quantize(dit, precision)
        velocity = dit(**inputs()).sample
    velocity.float().square().mean().backward()
    assert velocity.dtype == exact.dtype
    assert (velocity - exact).float().norm() < (ERRORS[precision] + 1e-2) * exact.float().norm()


def test_what_cannot_be_is_refused_by_name(make_transformer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dit = make_transformer()
    with pytest.raises(ValueError, match="precision 'fp4' is unknown; choose one of bf16, fp8, int8, int4"):
        quantize(dit, "fp4")
    with pytest.raises(ValueError, match="takes 48 channels; int4 needs a multiple of 32: use int8"):
        quantize(dit, "int4")
    for precision in ("fp8", "int4"):
        with pytest.raises(ValueError, match=f"{precision} weights cannot be computed with on mps, only on cpu"):
            check_precision(precision, torch.device("mps"))
    with pytest.raises(ValueError, match="nothing can be trained through int4 weights; use bf16, fp8, int8"):
        check_precision("int4", CUDA, training=True)
    dit.blocks[1].ffn.net[2].base_layer.bias.requires_grad_(True)
    with pytest.raises(ValueError, match=r"blocks\.1\.ffn\.net\.2\.base_layer\.bias is in training"):
        quantize(dit, "int8")
    assert not any(is_quantised(p) for p in dit.parameters())
    dit.blocks[1].ffn.net[2].base_layer.bias.requires_grad_(False)
    quantize(dit, "int8")
    with pytest.raises(ValueError, match=r"blocks\.0\.attn1\.to_q\.base_layer is quantised already"):
        quantize(dit, "fp8")
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingExtraError, match=r'int8 weights need torchao .*pip install "chronoedit\[quantize\]"'):
        check_precision("int8", CPU)
    check_precision("bf16", CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "group"), [(96, 32), (192, 64), (512, 128)])
def test_int4_on_a_cpu(width: int, group: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(width, 64, dtype=dtype).requires_grad_(False)
    dit = nn.Module()
    dit.blocks = nn.ModuleList([linear])
    x = torch.randn(2, 70, width, dtype=dtype)
    weight, exact = linear.weight.detach(), linear(x)
    quantize(dit, "int4")
    scales = 2 * 2 * 64 * width // group
    assert stored_bytes(linear) - linear.bias.nbytes == 64 * width // 2 + scales
    found = float((linear(x) - exact).norm() / exact.norm())
    assert 0.03 < found < 0.1 and linear(x).dtype == dtype
    assert stored_error(weight, "int4") == pytest.approx(found, rel=0.2)


@pytest.mark.gpu
def test_int4_on_a_gpu() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(256, 64, dtype=torch.bfloat16, device="cuda").requires_grad_(False)
    dit = nn.Module()
    dit.blocks = nn.ModuleList([linear])
    x = torch.randn(8, 256, dtype=torch.bfloat16, device="cuda")
    exact = linear(x)
    quantize(dit, "int4")
    assert (linear(x) - exact).norm() < 0.15 * exact.norm()
