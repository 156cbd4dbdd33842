"""A transformer alone in one file: original Wan names or ComfyUI's prefix, safetensors or GGUF."""

from __future__ import annotations

from pathlib import Path

from chronoedit.errors import CheckpointError
from chronoedit.model import keys
from chronoedit.model.headers import read_header, read_json
from chronoedit.model.parts import Transformer
from chronoedit.model.tensors import SafetensorsSource, TensorSource

SINGLE_FILE_SUFFIXES = (".safetensors", ".gguf")


def open_single_file(path: Path, config: Path) -> Transformer:
    """The transformer of a single file, with the config of the folder that it goes with; no tensor is read yet.

    Raises CheckpointError when the file is damaged, holds no such transformer, or does not fit the config.
    """
    arguments = keys.check_config(read_json(config), config)
    return Transformer(arguments, open_source(path), str(path))


def open_source(path: Path) -> TensorSource:
    """The tensors of a single transformer file under our names."""
    suffix = path.suffix.lower()
    if suffix not in SINGLE_FILE_SUFFIXES:
        raise CheckpointError(f"{path} is no transformer file; expected {' or '.join(SINGLE_FILE_SUFFIXES)}")
    table = read_header(path).tensors
    renamed = keys.names_to_ours(table, path)
    return SafetensorsSource({renamed[name]: info for name, info in table.items()})
