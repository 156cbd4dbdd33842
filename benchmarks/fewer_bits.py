"""What the model loses when its transformer's weights are stored in fewer bits, and when guidance ends early.

Each way edits the same items of the benchmark without reasoning; its success is compared, item by item, with that of
the model as it is. Beside it stands the error of the weights, over all kinds of layers. Each way has a folder of
`chronoedit eval world` below the output; a run that was stopped goes on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro

from chronoedit.editing.loading import load
from chronoedit.evaluation.run import WorldRun, compare_runs, run_world
from chronoedit.model.checkpoint import locate
from chronoedit.model.parts import open_transformer
from chronoedit.model.singlefile import open_source
from chronoedit.model.tensors import TensorSource
from chronoedit.runtime.weight_errors import LayerErrors, by_layer, errors_against, errors_of_precision
from pages import measured_by, points, share, table, update

PLAIN = "as it is"
HEAD = ("", "error of the weights, by kind of layer", "success", "less the model as it is, points")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure; `files` are transformers of the model stored in another way, `update` a page with a part
    `fewer bits`."""

    output: Path = Path("out/fewer_bits")
    model: str = "tiny"
    items: int = 200
    precisions: tuple[str, ...] = ("fp8", "int8", "int4")
    files: tuple[Path, ...] = ()
    num_inference_steps: int | None = None
    update: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a model is opened, or edits are asked for; `file` is a stored transformer."""

    precision: str | None = None
    file: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def ways(options: Options) -> dict[str, Way]:
    """All ways by name, the plain one first."""
    return {
        PLAIN: Way(),
        **{f"`--precision {name}`": Way(precision=name) for name in options.precisions},
        **{f"the file {file.name}, as it is stored": Way(file=file) for file in options.files},
        "`--guidance-until 0.5`": Way(settings={"guidance_until": 0.5}),
    }


def folder_of(options: Options, number: int) -> Path:
    """Where the run of a way lies."""
    return options.output / str(number)


def measure(options: Options, way: Way, folder: Path) -> None:
    """Run what is missing of a way."""
    editor = load(
        way.file or options.model,
        device="cpu",
        base=None if way.file is None else options.model,
        precision=way.precision,
    )
    stored = {} if way.precision is None else {"precision": way.precision}
    run = WorldRun(
        items=options.items,
        num_inference_steps=options.num_inference_steps,
        model={"name": options.model, **editor.hashes, **stored},
        **way.settings,
    )
    run_world(lambda: editor, run, folder)


def errors(options: Options, way: Way) -> list[LayerErrors]:
    """How far the way's weights are from the model's; [] where they are the same."""
    exact: TensorSource = open_transformer(locate(options.model).folder / "transformer").source
    if way.precision is not None:
        return by_layer(errors_of_precision(exact, way.precision, torch.device("cpu")))
    if way.file is not None:
        found = by_layer(errors_against(open_source(way.file), exact, torch.device("cpu")))
        return [layer for layer in found if layer.largest]
    return []


def row(options: Options, number: int, name: str, way: Way) -> list[str]:
    """A line of the table, from finished runs."""
    folder = folder_of(options, number)
    success = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["model"]["overall"]
    layers = [layer.mean for layer in errors(options, way)]
    return [
        name,
        f"{min(layers):.1%} to {max(layers):.1%}" if layers else "",
        share(success),
        points(compare_runs(folder, folder_of(options, 0))["overall"]) if number else "",
    ]


def main(options: Options) -> None:
    """Measure every way, print the table, and write it into the page."""
    for number, (name, way) in enumerate(ways(options).items()):
        print(name, file=sys.stderr)
        measure(options, way, folder_of(options, number))
    rows = [row(options, number, name, way) for number, (name, way) in enumerate(ways(options).items())]
    facts = f"Items: {options.items} of the benchmark, without reasoning, on a CPU; 95 % intervals"
    text = f"{measured_by(facts)}\n{table(HEAD, rows)}\n"
    if options.update:
        update(options.update, text, "fewer bits")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options))
