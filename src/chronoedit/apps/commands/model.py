"""Commands about models: `convert` writes one in another layout, `info` says what one, or a picture, is."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from chronoedit.errors import ChronoEditError
from chronoedit.model import keys
from chronoedit.model.headers import (
    TensorInfo,
    find_dcp,
    fingerprint,
    read_header,
    read_json,
    read_tensors_info,
    refuse_pickle,
    weight_files,
)
from chronoedit.model.settings import read_settings

if TYPE_CHECKING:
    from chronoedit.model.tensors import TensorSource

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
COMPONENTS = ("transformer", "vae", "text_encoder", "image_encoder")
SHOWN_MODULES = 5


@dataclass(frozen=True)
class Convert:
    """Write a checkpoint in another layout, every weight bit kept unless another type is asked for."""

    source: tyro.conf.Positional[str]
    """A name (tiny), a folder, a hub id, a single transformer file (.safetensors, .gguf, .pth), or a training
    checkpoint of torch.distributed.checkpoint: the folder with .metadata, or the one that has it as model."""

    output: tyro.conf.Positional[Path]
    """A folder for the published layout, or a .safetensors file for original Wan names."""

    to: Literal["auto", "published", "original"] = "auto"
    """The layout to write; auto tells it by the output's name."""

    base: str | None = None
    """For a transformer alone (a single file, a training checkpoint): where the other components come from."""

    ema: bool = False
    """Of a training checkpoint, take the average of the weights instead of the weights."""

    dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep"
    """The type of the transformer's weights; keep leaves each as it is (GGUF and scaled fp8 are decoded)."""

    prefix: str = ""
    """Put before each original name, dot included; ComfyUI has "model.diffusion_model." there."""

    unused_norm: bool = False
    """Add the norm_q_img that the original layout carries and nothing uses."""

    max_shard_gb: float = 5.0
    """The largest shard of the published layout, in 10^9 bytes."""

    def run(self) -> int:
        """Convert, with a progress bar on a terminal; 0 when it is written."""
        import torch

        from chronoedit.model.convert import Conversion, convert, layout_for

        if not math.isfinite(self.max_shard_gb) or self.max_shard_gb <= 0:
            raise ValueError(f"--max-shard-gb is {self.max_shard_gb}; a number above 0 is expected")
        conversion = Conversion(
            layout=layout_for(self.output) if self.to == "auto" else self.to,
            dtype=None if self.dtype == "keep" else getattr(torch, self.dtype),
            prefix=self.prefix,
            unused_norm=self.unused_norm,
            max_shard_bytes=max(1, int(self.max_shard_gb * 1e9)),
        )
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("converting", total=None)
            convert(
                self.source,
                self.output,
                conversion,
                base=self.base,
                ema=self.ema,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        print(f"wrote {self.output} ({conversion.layout} layout)")
        return 0


@dataclass(frozen=True)
class Info:
    """Say what a checkpoint, a LoRA file, or a picture made by chronoedit is."""

    path: tyro.conf.Positional[str]
    """A name (tiny), a folder (of a model, or of a training checkpoint), a hub id, a .safetensors or .gguf file, or a
    picture."""

    precision: Literal["bf16", "fp8", "int8", "int4"] | None = None
    """Of a model: how far its transformer's weights are from bf16 when they are stored so, layer by layer."""

    against: str | None = None
    """Of a model: how far its transformer's weights are from this one's (a folder or a file), layer by layer; so what a
    file in fp8 or GGUF has lost."""

    def run(self) -> int:
        """Print the description; 0, or an error when nothing is known of the file."""
        console = Console(soft_wrap=True, highlight=False)
        path = Path(self.path)
        if self.precision is not None or self.against is not None:
            _describe_errors(self, console)
        elif path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES:
            _describe_picture(path, console)
        elif path.is_file():
            _describe_file(path, console)
        elif (training := find_dcp(path)) is not None:
            _describe_training(training, console)
        else:
            _describe_folder(self.path, console)
        return 0


COMMANDS: dict[str, type[Any]] = {"convert": Convert, "info": Info}


def _describe_picture(path: Path, console: Console) -> None:
    from chronoedit.media import read_metadata

    metadata = read_metadata(path)
    if metadata is None:
        raise ChronoEditError(f"{path} carries no record of an edit: it was not made by chronoedit, or was saved anew")
    console.print(f"{path}: a picture made by chronoedit {metadata.get('version', '(version unknown)')}", markup=False)
    for title in ("request", "hashes", "timings_s"):
        if title in metadata:
            _print_table(console, title, metadata[title].items())


def _describe_file(path: Path, console: Console) -> None:
    if path.suffix.lower() == ".gguf":
        from chronoedit.model.singlefile import open_source

        tensors = dict(open_source(path).tensors)
        console.print(f"{path}: a transformer in GGUF", markup=False)
        _print_tensors(console, {"transformer": tensors})
        return
    if path.suffix.lower() != ".safetensors":
        refuse_pickle(path)
        expected = ", ".join((".safetensors", ".gguf", *PICTURE_SUFFIXES))
        raise ChronoEditError(f"{path} is of no kind that is known here; expected a folder, or one of {expected}")
    tensors = read_header(path).tensors
    layout = keys.layout_of(tensors)
    if layout is None:
        _describe_lora(path, console)
        return
    names = {"ours": "published names", "original": "original Wan names"}[layout[0]]
    prefix = f" after the prefix {layout[1]}" if layout[1] else ""
    console.print(f"{path}: a transformer alone, {names}{prefix}", markup=False)
    _print_tensors(console, {"transformer": tensors})
    _print_table(console, "identity", [("model hash", fingerprint({"transformer": path}))])


def _describe_lora(path: Path, console: Console) -> None:
    from chronoedit.lora.adapters import read_lora
    from chronoedit.lora.files import describe

    lora = read_lora(path)
    console.print(f"{path}: a LoRA in the {lora.dialect} dialect", markup=False)
    _print_table(console, "LoRA", [*describe(lora).rows(shown_modules=SHOWN_MODULES), ("sha256", lora.sha256)])


def _describe_training(folder: Path, console: Console) -> None:
    from chronoedit.model.dcp import read_items

    items = read_items(folder)
    console.print(f"{folder}: a training checkpoint (torch.distributed.checkpoint)", markup=False)
    roots = keys.training_roots(items)
    rows: list[tuple[str, Any]] = []
    for root, kind in roots.items():
        names = keys.names_below(root, roots, items)
        layout = "original Wan names" if "head.head.weight" in names.values() else "published names"
        parameters = sum(math.prod(items[name].shape) for name in names)
        types = Counter(str(items[name].dtype).removeprefix("torch.") for name in names)
        shown = ", ".join(f"{dtype} ({count})" for dtype, count in types.most_common())
        rows.append((f"{kind} under {root or 'no prefix'}", f"{parameters:,} parameters, {shown}, {layout}"))
    files = {chunk.file for item in items.values() for chunk in item.chunks}
    size_bytes = sum(item.size_bytes for item in items.values())
    rows.append(("in all", f"{len(items)} tensors, {size_bytes:,} bytes, {len(files)} data files"))
    _print_table(console, "contents", rows)


def _describe_folder(name: str, console: Console) -> None:
    from chronoedit.model.checkpoint import fingerprinted_files, locate
    from chronoedit.model.parts import open_transformer

    located = locate(name)
    folder = located.folder
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    transformer = open_transformer(folder / "transformer")
    config = read_json(folder / "transformer" / "config.json")
    classes = f"{index.get('_class_name', 'no index')}, {config.get('_class_name', 'class not named')}"
    console.print(f"{name}: a checkpoint in the published layout ({classes})", markup=False)
    present = [part for part in COMPONENTS if (folder / part).is_dir()]
    _print_tensors(console, {part: read_tensors_info(weight_files(folder / part)) for part in present})
    _print_table(console, "transformer", transformer.arguments.items())
    settings = read_settings(folder, name=located.name).to_json()
    _print_table(console, "settings", settings.items())
    _print_table(console, "identity", [("folder", folder), ("model hash", fingerprint(fingerprinted_files(located)))])


def _describe_errors(info: Info, console: Console) -> None:
    """The errors of a transformer's weights by kind of layer: of a precision, or against another model's."""
    import torch

    from chronoedit.runtime.quantize import check_precision
    from chronoedit.runtime.weight_errors import by_layer, errors_against, errors_of_precision

    if info.precision is not None and info.against is not None:
        raise ValueError("--precision compares with the model's own bf16, --against with another; give one of them")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if info.against is not None:
        told = f"error of its weights against those of {info.against}"
        errors = errors_against(_weights_of(info.path), _weights_of(info.against), device)
    else:
        assert info.precision is not None
        check_precision(info.precision, device)
        told = f"error of weights stored in {info.precision}, against bf16"
        errors = errors_of_precision(_weights_of(info.path), info.precision, device)
    table = Table(box=None, pad_edge=False)
    for column in ("layer", "mean", "largest", "in block"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    layers = by_layer(errors)
    for each in layers:
        if each.largest or info.against is None:
            table.add_row(each.layer, f"{each.mean:.2%}", f"{each.largest:.2%}", each.block)
    console.print(f"{info.path}: {told} (RMS over RMS)", markup=False)
    console.print(table)
    if info.against is not None:
        console.print(f"equal: {sum(not each.largest for each in layers)} of {len(layers)} kinds of parameters")


def _weights_of(name: str) -> TensorSource:
    """The transformer's tensors of a model, or of a file that is a transformer alone."""
    from chronoedit.model.checkpoint import locate
    from chronoedit.model.parts import open_transformer
    from chronoedit.model.singlefile import open_source

    if Path(name).is_file():
        refuse_pickle(Path(name))
        return open_source(Path(name))
    return open_transformer(locate(name).folder / "transformer").source


def _print_tensors(console: Console, components: Mapping[str, Mapping[str, TensorInfo]]) -> None:
    table = Table(title="components", title_justify="left", box=None, pad_edge=False)
    for column in ("component", "parameters", "bytes", "types"):
        table.add_column(column, justify="right" if column in ("parameters", "bytes") else "left")
    for component, tensors in components.items():
        parameters = sum(math.prod(info.shape) for info in tensors.values())
        types = Counter(info.dtype for info in tensors.values())
        size_bytes = sum(info.size_bytes for info in tensors.values())
        shown = ", ".join(f"{dtype} ({count})" for dtype, count in types.most_common())
        table.add_row(component, f"{parameters:,}", f"{size_bytes:,}", shown)
    console.print(table)


def _print_table(console: Console, title: str, rows: Iterable[tuple[str, Any]]) -> None:
    console.print(f"\n{title}", style="italic", markup=False)
    for key, value in rows:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        console.print(f"  {key}: {text}", markup=False)
