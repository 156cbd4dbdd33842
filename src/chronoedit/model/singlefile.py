"""A transformer alone in one file: original Wan names, ComfyUI's prefix or ours; safetensors, scaled fp8, or GGUF.

What such a file stores in fewer than 16 bits is decoded as it is read, or stays so (`stored.StoredWeight`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chronoedit.errors import CheckpointError, MissingExtraError
from chronoedit.model import keys
from chronoedit.model.headers import TensorInfo, read_header, read_json, shown
from chronoedit.model.parts import Transformer
from chronoedit.model.stored import FP8, FP8_DTYPES, GGUF_TYPES, StoredWeight, decode, stays_stored
from chronoedit.model.tensors import SafetensorsSource, TensorSource

GGUF_SHAPE_KEY = "comfy.gguf.orig_shape."
GGUF_PLAIN = ("F32", "F16", "BF16")
FP8_SCALES = (".scale_weight", ".weight_scale")
FP8_EXTRAS = (".scale_input", ".input_scale", ".comfy_quant")
"""What only products in fp8 need; ComfyUI's `comfy_quant` repeats the weight's type in JSON."""
FP8_MARKER = "scaled_fp8"
NESTED_STATES = ("state_dict", "model", "module", "ema")


def open_single_file(path: Path, config: Path, *, as_stored: bool = False) -> Transformer:
    """The transformer of a single file, with the config of the folder that it goes with; no tensor is read yet.

    With `as_stored` the blocks' linear weights stay in the fp8 or GGUF type of the file. Raises CheckpointError when
    the file is damaged, holds no such transformer, or does not fit the config.
    """
    arguments = keys.check_config(read_json(config), config)
    source = open_source(path)
    if as_stored and isinstance(source, (Fp8Source, GgufSource)):
        source = replace(source, as_stored=True)
    return Transformer(arguments, source, str(path))


def open_source(path: Path, *, pickles: bool = False) -> TensorSource:
    """The tensors of a single transformer file under our names; `pickles` admits `.pth` files of plain tensors.

    Raises CheckpointError for a file of another kind, and MissingExtraError for GGUF without its package.
    """
    suffix = path.suffix.lower()
    if suffix in SINGLE_FILES:
        return SINGLE_FILES[suffix](path)
    if pickles and suffix in (".pth", ".pt"):
        return _open_pickle(path)
    raise CheckpointError(f"{path} is no transformer file; expected {' or '.join(SINGLE_FILES)}")


def _open_safetensors(path: Path) -> TensorSource:
    table = read_header(path).tensors
    renamed = keys.names_to_ours(table, path)
    scales = {name: info for name, info in table.items() if name.endswith(FP8_SCALES)}
    if not scales and not any(info.dtype in FP8_DTYPES for info in table.values()):
        return SafetensorsSource({renamed[name]: info for name, info in table.items()})
    extras = tuple(name for name in table if name.endswith(FP8_EXTRAS) or name.endswith(FP8_MARKER))
    weights = {renamed[name]: info for name, info in table.items() if name not in scales and name not in extras}
    scale_of = {renamed.get(weight, weight): scale for scale in scales for weight in (_scaled_weight(scale),)}
    foreign = [name for name in scale_of if name not in weights or weights[name].dtype not in FP8_DTYPES]
    if foreign:
        raise CheckpointError(
            f"{path}: {len(foreign)} scales belong to no fp8 weight ({shown(foreign)}); only fp8 files with a scale "
            f"for each weight are read, use a bf16 or GGUF file instead"
        )
    found = {name: scales[scale] for name, scale in scale_of.items()}
    odd = [name for name, info in found.items() if math.prod(info.shape) not in (1, weights[name].shape[0])]
    if odd:
        raise CheckpointError(
            f"{path}: the scales of {len(odd)} fp8 weights are neither one number nor one a row ({shown(odd)}); use a "
            f"bf16 or GGUF file instead"
        )
    return Fp8Source(weights, found)


def _scaled_weight(scale: str) -> str:
    return scale.rpartition(".")[0] + ".weight"


@dataclass(frozen=True)
class Fp8Source:
    """fp8 weights, each times its own fp32 scale (one number, or one per output row) where it has one."""

    tensors: Mapping[str, TensorInfo]
    scales: Mapping[str, TensorInfo]
    as_stored: bool = False

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Each name with its tensor; scaled ones come in fp32, or as they are stored."""
        wanted = {name: info for name, info in self.scales.items() if name in self.tensors}
        scales = {name: scale.float().flatten() for name, scale in SafetensorsSource(wanted).read(device)}
        for name, tensor in SafetensorsSource(self.tensors).read(device):
            if self.as_stored and stays_stored(name, self.tensors[name]):
                parts = {"codes": tensor, "scale": scales[name]} if name in scales else {"codes": tensor}
                yield name, StoredWeight(FP8, parts, tensor.shape, torch.float32)
            else:
                yield name, decode(FP8, tensor, scales[name]) if name in scales else tensor


@dataclass(frozen=True)
class GgufSource:
    """The tensors of a GGUF file, read one by one; on the CPU what stays as it is stored is mapped, not copied."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    as_stored: bool = False

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Each name with its tensor: plain ones as they are, quantised ones in fp32, or as they are stored."""
        import gguf

        reader = gguf.GGUFReader(str(self.path), mode="c")  # torch wants memory that may be written to; the file is not
        stored = {tensor.name: tensor for tensor in reader.tensors}
        for name, info in self.tensors.items():
            codes = torch.from_numpy(stored[info.key].data).to(device)
            if info.dtype in GGUF_PLAIN:
                plain = codes.view(torch.bfloat16) if info.dtype == "BF16" else codes
                yield name, plain.reshape(info.shape)
            elif self.as_stored and stays_stored(name, info):
                yield name, StoredWeight(info.dtype, {"codes": codes}, info.shape, torch.float32)
            else:
                yield name, decode(info.dtype, codes).reshape(info.shape)


def _open_gguf(path: Path) -> TensorSource:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError(f'{path} needs the package gguf: pip install "chronoedit[gguf]"') from error
    try:
        reader = gguf.GGUFReader(str(path))
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise CheckpointError(f"{path} is truncated or no GGUF file ({error}); download it again") from error
    table = {tensor.name: _gguf_info(path, tensor, reader.fields) for tensor in reader.tensors}
    foreign = sorted({info.dtype for info in table.values()} - {*GGUF_PLAIN, *GGUF_TYPES})
    if foreign:
        raise CheckpointError(
            f"{path} is quantised as {', '.join(foreign)}, which cannot be decoded here; use a file in "
            f"{', '.join(GGUF_TYPES)}, or in {', '.join(GGUF_PLAIN)}"
        )
    renamed = keys.names_to_ours(table, path)
    return GgufSource(path, {renamed[name]: info for name, info in table.items()})


def _gguf_info(path: Path, tensor: Any, fields: Mapping[str, Any]) -> TensorInfo:
    shape = tuple(int(side) for side in reversed(tensor.shape))
    original = fields.get(GGUF_SHAPE_KEY + tensor.name)  # writers that know at most four axes flatten some
    if original is not None:
        wanted = tuple(int(original.parts[index][0]) for index in original.data)
        shape = wanted if math.prod(wanted) == math.prod(shape) else shape
    return TensorInfo(path, tensor.name, tensor.tensor_type.name, shape, int(tensor.n_bytes))


@dataclass(frozen=True)
class MemorySource:
    """Tensors that are in memory already."""

    tensors: Mapping[str, TensorInfo]
    values: Mapping[str, Tensor]

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Each name with its tensor."""
        for name in self.tensors:
            yield name, self.values[name].to(device)


SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}


def _open_pickle(path: Path) -> TensorSource:
    """A `.pth` of plain tensors; torch's restricted reader runs no code from it."""
    import pickle

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as plain tensors ({_first_line(error)})") from error
    for key in NESTED_STATES:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no table of tensors by name; expected a transformer's state dict")
    of_training = keys.layout_of(state) is None and keys.training_roots(state)
    renamed = keys.training_names(state, average=False, where=path) if of_training else keys.names_to_ours(state, path)
    foreign = [name for name in renamed if state[name].dtype not in SAFETENSORS_DTYPES]
    if foreign:
        raise CheckpointError(f"{path}: {len(foreign)} tensors are of no floating-point type ({shown(foreign)})")
    values = {}
    for name, ours in renamed.items():
        values[ours] = state[name].reshape(keys.convolution_shape(ours, tuple(state[name].shape))).contiguous()
    return MemorySource({name: tensor_info(path, name, value) for name, value in values.items()}, values)


def tensor_info(path: Path, name: str, tensor: Tensor) -> TensorInfo:
    """What a header would say of a tensor in memory."""
    size_bytes = tensor.numel() * tensor.element_size()
    return TensorInfo(path, name, SAFETENSORS_DTYPES[tensor.dtype], tuple(tensor.shape), size_bytes)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


SINGLE_FILES: dict[str, Callable[[Path], TensorSource]] = {".safetensors": _open_safetensors, ".gguf": _open_gguf}
SINGLE_FILE_SUFFIXES = tuple(SINGLE_FILES)
