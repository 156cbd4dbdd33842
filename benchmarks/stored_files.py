"""A model's transformer as files that store it in fewer bits: scaled fp8 as ComfyUI has it, and GGUF.

GGUF is quantised by the package `gguf` itself, so only in the types that it can write.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor

from chronoedit.model import keys
from chronoedit.model.checkpoint import locate
from chronoedit.model.parts import open_transformer

LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max


@dataclass(frozen=True, kw_only=True)
class Files:
    """Write FORMAT.gguf, or fp8.safetensors, into a folder, of each format: fp8, or a type of GGUF."""

    folder: Path
    model: str = "tiny"
    formats: tuple[str, ...] = ("fp8", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")


def main(files: Files) -> None:
    """Write the files and print their names."""
    source = open_transformer(locate(files.model).folder / "transformer").source
    weights = {str(keys.to_original(name)): tensor for name, tensor in source.read(torch.device("cpu"))}
    files.folder.mkdir(parents=True, exist_ok=True)
    for each in files.formats:
        path = files.folder / f"{each}{'.safetensors' if each == 'fp8' else '.gguf'}"
        if each == "fp8":
            write_fp8(path, weights)
        else:
            write_gguf(path, weights, each)
        print(path)


def write_fp8(path: Path, weights: dict[str, Tensor]) -> None:
    """The blocks' linear weights in e4m3, each with one scale; the rest as it is."""
    tensors = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, weight in weights.items():
        if not _is_linear(name, weight):
            tensors[name] = weight
            continue
        scale = weight.abs().amax().float() / LARGEST_FP8
        tensors[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
        tensors[f"{name.removesuffix('.weight')}.scale_weight"] = scale
    save_file(tensors, path)


def write_gguf(path: Path, weights: dict[str, Tensor], kind: str) -> None:
    """The blocks' linear weights in blocks of this type, the rest in fp32."""
    quantised = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(path), "wan")
    for name, weight in weights.items():
        values = np.ascontiguousarray(weight.float().numpy())
        if values.ndim > 4:  # axes that the format does not know; readers find the shape beside
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(side) for side in values.shape])
            values = values.reshape(-1, values.shape[-1])
        if _is_linear(name, weight):
            writer.add_tensor(name, gguf.quantize(values, quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _is_linear(name: str, weight: Tensor) -> bool:
    return name.startswith("blocks.") and name.endswith(".weight") and weight.ndim == 2


if __name__ == "__main__":
    main(tyro.cli(Files))
