"""What the star's runs come to: its parts, what becomes of the known edits, the curve, and rows of pictures.

python examples/star/figures.py parts out/star/after
python examples/star/figures.py strays out/star/known_after
python examples/star/figures.py curve out/star/lora docs/pictures/star_curve.svg
python examples/star/figures.py pictures out/star/lora/lora.safetensors docs/pictures/star.png
PYTHONPATH=benchmarks python examples/star/figures.py report out/star docs/benchmarks.md
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from tyro.conf import Positional

import chronoedit
from chronoedit.evaluation.appearance import observe
from chronoedit.evaluation.physics import score
from chronoedit.evaluation.run import image_path, read_records
from chronoedit.evaluation.statistics import bootstrap_mean
from chronoedit.evaluation.summary import Record, difference, grouped, pairs_of
from chronoedit.media import contact_sheet, load_image, save_image, write_files
from chronoedit.report import Plot
from chronoedit.world import FIRST_EVALUATION_SEED, Item, sample_item
from chronoedit.world.scenes.star import held_out

PARTS: dict[str, Callable[[tuple[str, ...]], bool]] = {
    "all": lambda out: True,
    "nothing held out": lambda out: not out,
    "kind held out": lambda out: "kind" in out,
    "colour held out": lambda out: "colour" in out,
    "backdrop held out": lambda out: "backdrop" in out,
}
MOMENTS = (0.25, 0.45, 0.6, 0.8)  # of the trajectory
SCALE = 2
CURVE_POINTS = 60
SVG_STYLE = (
    "text { fill: #60646c; font: 11px sans-serif } .axis { stroke: #dfe1e5 } path { fill: none; stroke-width: 1.8 } "
    ".s0 { stroke: #0b68c4 }"
)


def parts(folder: Positional[Path]) -> None:
    """Success of each row of a run of the family star, by what is held out; Markdown."""
    print(_parts(read_records(folder)))


def _parts(records: Sequence[Record]) -> str:
    rows = list(records[0]["rows"])
    lines = [f"| success | {' | '.join(rows)} | items |", f"| --- |{' ---: |' * (len(rows) + 1)}"]
    for name, belongs in PARTS.items():
        chosen = [r for r in records if belongs(held_out(sample_item(r["seed"], family="star").scene))]
        lines.append(f"| {name} | {' | '.join(_success(chosen, row) for row in rows)} | {len(chosen)} |")
    return "\n".join(lines)


def _success(records: Sequence[Record], row: str) -> str:
    if not records:
        return "–"
    mean = bootstrap_mean([float(record["rows"][row]["success"]) for record in records])
    return f"{mean.mean:.1%} ({mean.low:.0%} to {mean.high:.0%})"


def strays(folder: Positional[Path]) -> None:
    """In how many edited pictures of a run of the known edits there is a body that is most like a star."""
    found, count = _strays(folder, "model")
    print(f"{len(found)} of {count} pictures have a star that nobody asked for:", *found)


def _strays(folder: Path, row: str) -> tuple[list[int], int]:
    """The seeds of pictures with a star, and how many pictures there are."""
    records = read_records(folder)
    return [record["seed"] for record in records if _has_star(record, folder, row)], len(records)


def _has_star(record: Record, folder: Path, row: str) -> bool:
    item = sample_item(record["seed"], family=record["family"])
    picture = np.asarray(load_image(image_path(folder, record["seed"], row)))
    return any(seen.kind == "star" for seen in observe(picture, item.end, also=("star",)).bodies.values())


def report(
    folder: Positional[Path], page: Positional[Path], *, known: Path | None = None, known_row: str = "model"
) -> None:
    """Write the part `star` of a page from the runs in a folder: before, after, known_before, known_after, lora.

    `known` is a run that stands for known_before, with the rows that are named `known_row`.
    """
    from pages import measured_by, points, table, update  # of the folder `benchmarks`

    known = known or folder / "known_before"
    before, after = read_records(known), read_records(folder / "known_after")
    pairs = pairs_of(after, before, "model", known_row)
    groups = {"all": difference(pairs), **grouped(pairs, "family", difference), **grouped(pairs, "edit", difference)}
    rows = [
        (name, _success(_of(before, name), known_row), _success(_of(after, name), "model"), points(each))
        for name, each in groups.items()
    ]
    log = [json.loads(line) for line in (folder / "lora/log.jsonl").read_text().splitlines()]
    (stray, count), (stray_before, _) = _strays(folder / "known_after", "model"), _strays(known, known_row)
    parts_of_text = [
        measured_by(f"Training: {log[-1]['step']} steps in {log[-1]['minutes']:.0f} minutes"),
        f"The new edit before:\n\n{_parts(read_records(folder / 'before'))}\n",
        f"And after:\n\n{_parts(read_records(folder / 'after'))}\n",
        f"Known edits, without reasoning, the difference item by item in points:\n\n"
        f"{table(('', 'before', 'after', 'after less before'), rows)}\n",
        f"Of {count} pictures of known edits {len(stray)} have a star that nobody asked for, {len(stray_before)} "
        "before.\n",
    ]
    update(page, "\n".join(parts_of_text), "star")


def _of(records: Sequence[Record], name: str) -> list[Record]:
    return [record for record in records if name in ("all", record["family"], record["edit"])]


def curve(folder: Positional[Path], output: Positional[Path]) -> None:
    """Draw the training loss of a run, averaged over the lines of its log, over the minutes it took."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    points = [(line["minutes"], line["loss"]) for line in lines if "loss" in line]
    size = max(1, len(points) // CURVE_POINTS)
    edges = [*range(0, len(points), size), len(points)]
    means = [tuple(np.mean(points[a:b], axis=0).tolist()) for a, b in pairwise(edges) if b > a]
    svg = Plot("Training loss", {"loss": means}, x="minutes", log_y=True).figure().find("svg")
    assert svg is not None
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    svg.insert(0, ET.Element("rect", {"width": "100%", "height": "100%", "fill": "#fff"}))
    style = ET.Element("style")
    style.text = SVG_STYLE
    svg.insert(0, style)
    write_files({output: ET.tostring(svg)})


def pictures(lora: Positional[Path], output: Positional[Path]) -> None:
    """Draw the first scenes of evaluation of each part: before, what is imagined on the way, the edit."""
    editor = chronoedit.load("tiny")
    editor.load_loras([(lora, 1.0)])
    sheet_rows, labels = [], []
    for item in _shown():
        result = editor.edit(
            chronoedit.EditRequest(
                image=item.input, prompt=item.prompt, seed=item.seed, reasoning=True, return_trajectory=True
            )
        )
        assert result.trajectory is not None
        last = len(result.trajectory) - 1
        frames = [item.input, *(result.trajectory[round(t * last)] for t in MOMENTS), np.asarray(result.image)]
        sheet_rows.append([_enlarged(frame) for frame in frames])
        out = held_out(item.scene)
        verdict = "passes" if score(item, np.asarray(result.image)).success else "fails"
        labels.append(f"{item.prompt} [{item.seed}; held out: {', '.join(out) or 'nothing'}] {verdict}")
    titles = ("before", *["on the way"] * len(MOMENTS), "after")
    save_image(contact_sheet(sheet_rows, labels, titles), output)


def _shown() -> list[Item]:
    """Of the evaluated scenes the first two with nothing held out, and the first of each part held out alone."""
    wanted: list[tuple[str, ...]] = [(), (), ("kind",), ("colour",), ("backdrop",)]
    chosen: list[Item] = []
    seed = FIRST_EVALUATION_SEED
    while wanted:
        item = sample_item(seed, family="star")
        if held_out(item.scene) in wanted:
            wanted.remove(held_out(item.scene))
            chosen.append(item)
        seed += 1
    return sorted(chosen, key=lambda item: (len(held_out(item.scene)), item.seed))


def _enlarged(frame: np.ndarray) -> Image.Image:
    height, width = frame.shape[:2]
    return Image.fromarray(frame).resize((width * SCALE, height * SCALE), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"parts": parts, "strays": strays, "curve": curve, "pictures": pictures, "report": report}, description=__doc__
    )
