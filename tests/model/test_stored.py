"""Weights as their file stores them: what they decode to, what a layer makes of them, and that they can be moved."""

from __future__ import annotations

import copy

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.quantizers.gguf.utils import dequantize_functions
from torch import Tensor, nn

from chronoedit.model import stored
from chronoedit.model.stored import FP8, GGUF_TYPES, Addition, StoredWeight, decode

WRITABLE = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
HALVES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,),
          "IQ4_XS": (0,)}  # fmt: skip
"""Where in a block of bytes the scales in half precision begin; all other bytes may be anything."""


def random_codes(kind: str, rows: int, width: int) -> np.ndarray:
    """Codes as a file has them: of random numbers where gguf can quantise, else random blocks with sane scales."""
    rng = np.random.default_rng(len(kind))
    kind_of_gguf = gguf.GGMLQuantizationType[kind]
    if kind in WRITABLE:
        return gguf.quantize(rng.standard_normal((rows, width), dtype=np.float32), kind_of_gguf)
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind_of_gguf]
    blocks = rng.integers(0, 256, (rows * width // block, block_bytes), dtype=np.uint8)
    for start in HALVES[kind]:
        scales = rng.uniform(1e-3, 1e-2, len(blocks)).astype(np.float16)
        blocks[:, start : start + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


def gguf_weight(kind: str, rows: int = 12, width: int = 512, dtype: torch.dtype = torch.float32) -> StoredWeight:
    return StoredWeight(kind, {"codes": torch.from_numpy(random_codes(kind, rows, width))}, (rows, width), dtype)


def fp8_weight(scaled: str, dtype: torch.dtype = torch.float32) -> tuple[StoredWeight, Tensor]:
    """A weight and what it stands for; the scale is one number, one a row, or none."""
    torch.manual_seed(0)
    codes = torch.randn(12, 64).to(torch.float8_e4m3fn)
    scale = {"none": None, "one": torch.tensor(0.3), "rows": torch.rand(12)}[scaled]
    parts = {"codes": codes} if scale is None else {"codes": codes, "scale": scale}
    factor = 1.0 if scale is None else scale.reshape(-1, 1)
    return StoredWeight(FP8, parts, (12, 64), dtype), codes.float() * factor


def layer_of(weight: StoredWeight, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(1)
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype).requires_grad_(False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_gguf_decodes_as_its_own_package_does(kind: str) -> None:
    codes = random_codes(kind, 6, 512)
    expected = gguf.dequantize(codes, gguf.GGMLQuantizationType[kind])
    assert np.isfinite(expected).all() and expected.std() > 0
    assert np.array_equal(decode(kind, torch.from_numpy(codes)).numpy(), expected)


def test_all_that_diffusers_can_decode_is_known() -> None:
    assert {kind.name for kind in dequantize_functions} == {*GGUF_TYPES, "BF16"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [*GGUF_TYPES, "none", "one", "rows"])
def test_a_layer_computes_with_the_decoded_weight(kind: str, dtype: torch.dtype) -> None:
    weight = gguf_weight(kind, dtype=dtype) if kind in GGUF_TYPES else fp8_weight(kind, dtype)[0]
    layer = layer_of(weight, dtype)
    x = torch.randn(2, 5, weight.shape[1], dtype=dtype)
    plain = weight.dequantize(dtype)
    assert type(plain) is Tensor and plain.dtype == dtype
    assert torch.equal(layer(x), F.linear(x, plain, layer.bias))
    if kind not in GGUF_TYPES:
        assert torch.equal(weight.dequantize(), fp8_weight(kind)[1])


def test_rows_are_decoded_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [gguf_weight("Q4_K"), fp8_weight("rows")[0]]
    for weight in whole:
        weight.additions = [Addition(scale=0.5, difference=torch.randn(weight.shape))]
    expected = [weight.dequantize() for weight in whole]
    monkeypatch.setattr(stored, "DECODED_AT_ONCE", 5 * 64)
    assert all(torch.equal(weight.dequantize(), plain) for weight, plain in zip(whole, expected, strict=True))


def test_what_is_added_comes_and_goes() -> None:
    weight = gguf_weight("Q4_0")
    layer, x = layer_of(weight), torch.randn(3, 512)
    before, plain = layer(x), weight.dequantize()
    up, down, difference = torch.randn(12, 4), torch.randn(4, 512), torch.randn(12, 512)
    parameter = layer.weight
    parameter.additions = [Addition(scale=0.5, up=up, down=down), Addition(scale=-2.0, difference=difference)]
    assert layer.weight is parameter
    assert torch.equal(parameter.dequantize(), plain + 0.5 * (up @ down) - 2.0 * difference)
    assert parameter.__tensor_flatten__()[0] == ["codes", "up_0", "down_0", "difference_1"]
    parameter.additions = [Addition(scale=1.0, up=up, down=down)]
    assert parameter.__tensor_flatten__()[0] == ["codes", "up_0", "down_0"] and not hasattr(parameter, "difference_1")
    parameter.additions = ()
    assert torch.equal(layer(x), before)


def test_moved_copied_and_converted_it_stays_stored() -> None:
    layer, x = layer_of(gguf_weight("Q5_1")), torch.randn(3, 512)
    layer.weight.additions = [Addition(scale=0.5, up=torch.randn(12, 4), down=torch.randn(4, 512))]
    expected = layer(x)
    for other in (
        copy.deepcopy(layer),
        copy.deepcopy(layer).to("cpu"),
        copy.deepcopy(layer).to(torch.bfloat16).float(),
    ):
        assert isinstance(other.weight, StoredWeight) and isinstance(other.weight, nn.Parameter)
        assert torch.equal(other.weight.dequantize(), layer.weight.dequantize())
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    half = copy.deepcopy(layer).to(torch.bfloat16)
    assert half.weight.dtype == torch.bfloat16 and half.weight.codes.dtype == torch.uint8
    away = copy.deepcopy(layer).to("meta").weight
    assert {part.device.type for part in (away, away.codes, away.up_0, away.down_0)} == {"meta"}
    names, context = layer.weight.__tensor_flatten__()
    parts = {name: getattr(layer.weight, name) for name in names}
    again = StoredWeight.__tensor_unflatten__(parts, context, layer.weight.shape, layer.weight.stride())
    assert torch.equal(again.dequantize(), layer.weight.dequantize())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_it_follows_what_is_added() -> None:
    layer, x = layer_of(gguf_weight("Q4_K")), torch.randn(3, 512)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    factors = [(torch.randn(12, rank), torch.randn(rank, 512)) for rank in (4, 4, 7)]
    with torch.no_grad():
        for scale, count in ((0.5, 0), (0.5, 1), (2.0, 1), (2.0, 3), (1.0, 0)):
            layer.weight.additions = [Addition(scale=scale, up=up, down=down) for up, down in factors[:count]]
            assert torch.equal(compiled(x), layer(x))


def test_what_would_be_wrong_is_refused() -> None:
    weight = gguf_weight("Q8_0")
    with pytest.raises(NotImplementedError, match="of a stored weight; decode it with dequantize"):
        weight + 1
    assert "Q8_0" in repr(weight)
