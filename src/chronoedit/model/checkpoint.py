"""A checkpoint by name, folder, hub id or transformer file, opened as `Components` that load when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import torch

from chronoedit.errors import CheckpointError
from chronoedit.model import hub
from chronoedit.model.headers import fingerprint, refuse_pickle
from chronoedit.model.parts import Target, folder_loaders, open_transformer
from chronoedit.model.random_checkpoint import write_random_checkpoint
from chronoedit.model.settings import ModelSettings, read_settings
from chronoedit.model.singlefile import SINGLE_FILE_SUFFIXES, open_single_file

__all__ = ["Components", "ModelSettings", "Part", "open_checkpoint", "write_random_checkpoint"]

EMBEDDED = {"tiny": Path("weights") / "tiny"}
"""Models inside the package, by name."""

FINGERPRINTED_SUFFIXES = frozenset({".safetensors", ".gguf", ".json", ".model"})


class Part:
    """A component of `Components`: loaded on first access, replaceable, and freed by `release`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, components: None, owner: type) -> Part: ...
    @overload
    def __get__(self, components: Components, owner: type) -> Any: ...
    def __get__(self, components: Components | None, owner: type) -> Any:
        if components is None:
            return self
        if self.name not in components.loaded:
            components.loaded[self.name] = components.loaders[self.name]()
        return components.loaded[self.name]

    def __set__(self, components: Components, value: Any) -> None:
        components.loaded[self.name] = value


class Components:
    """The parts of one model. Its settings are there at once; each other part is loaded when it is first read.

    `transformer` (ChronoEditDiT), `autoencoder` (AutoencoderKLWan, fp32), `text_encoder` (UMT5EncoderModel),
    `tokenizer`, and `image_encoder` (CLIPVisionModel, fp32) with `image_processor`, both None in a model without an
    image branch. `loaders` makes the parts that are not in `loaded`; a part loaded in memory needs no loader.
    """

    transformer = Part()
    autoencoder = Part()
    text_encoder = Part()
    tokenizer = Part()
    image_encoder = Part()
    image_processor = Part()

    def __init__(
        self,
        settings: ModelSettings,
        *,
        source: str,
        target: Target,
        loaders: Mapping[str, Callable[[], Any]],
        loaded: Mapping[str, Any] | None = None,
        hasher: Callable[[], str] = lambda: "",
        loaders_for: Callable[[Target], Mapping[str, Callable[[], Any]]] | None = None,
    ) -> None:
        self.settings = settings
        self.source = source
        self.target = target
        self.loaders = dict(loaders)
        self.loaded = dict(loaded or {})
        self._hasher = hasher
        self._hash: str | None = None
        self._loaders_for = loaders_for
        absent = [name for name in PART_NAMES if name not in self.loaders and name not in self.loaded]
        unknown = [name for name in (*self.loaders, *self.loaded) if name not in PART_NAMES]
        if absent or unknown:
            raise ValueError(f"parts missing: {absent}, unknown: {unknown}; the parts are {', '.join(PART_NAMES)}")

    @classmethod
    def in_memory(
        cls, settings: ModelSettings, parts: Mapping[str, Any], *, dtype: torch.dtype, device: torch.device | str
    ) -> Components:
        """A model from parts that exist already, by attribute name; a model in training is edited with this way.

        Parts left out of `parts` are None, which only the two of the image branch may be. Its hash is empty.
        """
        loaded = {"image_encoder": None, "image_processor": None, **parts}
        target = Target(dtype, torch.device(device))
        return cls(settings, source=settings.name, target=target, loaders={}, loaded=loaded)

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the transformer and the text encoder compute."""
        return self.target.dtype

    @property
    def device(self) -> torch.device:
        """The device that the parts are loaded to."""
        return self.target.device

    @property
    def model_hash(self) -> str:
        """A sha256 that identifies the weights, configs and tokenizer (see `headers.fingerprint`)."""
        if self._hash is None:
            self._hash = self._hasher()
        return self._hash

    def retarget(self, device: torch.device, *, mapped: bool = False) -> None:
        """Let what is loaded from now on go to this device, or stay in its files (see `Target`)."""
        self.target = replace(self.target, device=device, mapped=mapped)
        if self._loaders_for is not None:
            self.loaders = dict(self._loaders_for(self.target))

    def release(self, name: str) -> None:
        """Drop a loaded part from memory; it is loaded again when it is next read."""
        if name not in self.loaders:
            raise ValueError(f"{name!r} cannot be loaded again; releasable are {', '.join(self.loaders) or 'none'}")
        self.loaded.pop(name, None)


PART_NAMES = tuple(name for name, value in vars(Components).items() if isinstance(value, Part))


@dataclass(frozen=True)
class Located:
    """A checkpoint found on disk: a folder in the published layout, and the transformer's own file if it has one."""

    name: str
    folder: Path
    transformer_file: Path | None = None


def locate(path_or_id: str | Path, base: str | Path | None = None) -> Located:
    """Where a checkpoint lies: an embedded model's name, a folder, a transformer file with its base, or a hub id.

    A hub id is downloaded, or found in the cache. Raises CheckpointError that says what was looked for.
    """
    text = str(path_or_id)
    if text in EMBEDDED:
        return _located_base(text, base, Path(__file__).parents[1] / EMBEDDED[text])
    path = Path(path_or_id)
    if path.is_dir():
        return _located_base(path.resolve().name, base, path)
    if path.is_file():
        refuse_pickle(path)
        if base is None:
            raise CheckpointError(
                f"{path} holds a transformer alone; give a folder in the published layout for the other components "
                f"(load(path, base=FOLDER), or --base FOLDER)"
            )
        return Located(path.stem, locate(base).folder, path)
    if path.suffix.lower() in SINGLE_FILE_SUFFIXES or not hub.is_hub_id(text):
        raise CheckpointError(
            f"no file or folder {text}; expected {', '.join(EMBEDDED)}, a folder in the published layout, a "
            f"transformer file ({', '.join(SINGLE_FILE_SUFFIXES)}) or a hub id such as {hub.EXAMPLE_ID}"
        )
    return _located_base(text, base, hub.download(text))


def _located_base(name: str, base: str | Path | None, folder: Path) -> Located:
    if base is not None:
        raise CheckpointError(f"base={base} goes with a single transformer file; {name} brings all its components")
    return Located(name, folder)


def open_checkpoint(
    path_or_id: str | Path = "tiny",
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    base: str | Path | None = None,
    as_stored: bool = False,
) -> Components:
    """Open a model by embedded name, folder, hub id or single transformer file (then with a folder as `base`).

    With `as_stored` the fp8 and GGUF weights of such a file stay so (`stored.StoredWeight`), for inference.

    Configs, file lengths and the transformer's names and shapes are checked now; tensors are read when a part is
    first used. `device` defaults to CUDA where there is any, else the CPU; `dtype` to fp32 on the CPU, else bf16.
    Raises CheckpointError that says what is wrong with which file and what to do.
    """
    located = locate(path_or_id, base)
    target = _target(dtype, device)
    settings = read_settings(located.folder, name=located.name)
    config = located.folder / "transformer" / "config.json"
    if located.transformer_file is None:
        transformer = open_transformer(config.parent)
    else:
        transformer = open_single_file(located.transformer_file, config, as_stored=as_stored)
    return Components(
        settings,
        source=str(path_or_id),
        target=target,
        loaders=folder_loaders(located.folder, transformer, target),
        loaders_for=partial(folder_loaders, located.folder, transformer),
        hasher=lambda: fingerprint(fingerprinted_files(located)),
    )


def _target(dtype: torch.dtype | None, device: torch.device | str | None) -> Target:
    chosen = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    if dtype is None:
        dtype = torch.float32 if chosen.type == "cpu" else torch.bfloat16
    if not dtype.is_floating_point or dtype.itemsize < 2:
        raise ValueError(f"dtype {dtype} cannot be computed in; use torch.float32, torch.bfloat16 or torch.float16")
    return Target(dtype, chosen)


def fingerprinted_files(located: Located) -> dict[str, Path]:
    """The files that `model_hash` covers: the components' weights, configs and vocabularies, by name in the folder."""
    files: dict[str, Path] = {}
    for component in ("transformer", "vae", "text_encoder", "image_encoder", "tokenizer", "image_processor"):
        if component == "transformer" and located.transformer_file is not None:
            files["transformer"] = located.transformer_file
            files["transformer/config.json"] = located.folder / "transformer" / "config.json"
            continue
        for path in sorted((located.folder / component).glob("*")):
            if path.suffix in FINGERPRINTED_SUFFIXES:
                files[f"{component}/{path.name}"] = path
    return files
