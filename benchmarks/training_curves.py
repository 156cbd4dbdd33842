"""The course of the embedded model's training, from the logs of the run that made its weights: tables and curves.

The logs lie beside the recipes; whoever trains the model again copies those of the new run over them
(`OUTPUT/frames/log.jsonl`, `OUTPUT/decoder_clips/log.jsonl` of the autoencoder, `OUTPUT/log.jsonl` of the model).
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from chronoedit.media import write_files
from chronoedit.report import Plot
from pages import ROOT, table, update

Record = Mapping[str, Any]

ROWS = 10
WIDTH, HEIGHT = 420, 240
SVG_STYLE = (
    "text { fill: #60646c; font: 11px sans-serif } .axis { stroke: #dfe1e5 } path { fill: none; stroke-width: 1.8 } "
    ".s0 { stroke: #0b68c4 } .s1 { stroke: #d9730d } .s2 { stroke: #2f8f5b } .s3 { stroke: #8a4fbf }"
)


@dataclass(frozen=True, kw_only=True)
class Course:
    """One log: its file, what is tabled of it (column by key), and the curves that are drawn."""

    file: str
    columns: Mapping[str, str]
    curves: Mapping[str, str]
    title: str
    digits: int
    log_y: bool = False


COURSES: dict[str, Course] = {
    "autoencoder": Course(
        file="autoencoder.jsonl",
        columns={"psnr": "pictures, dB", "psnr_detail": "near edges, dB", "psnr_noisy": "latents disturbed, dB"},
        curves={"psnr": "pictures", "psnr_detail": "near edges"},
        title="autoencoder: PSNR, dB",
        digits=1,
    ),
    "decoder": Course(
        file="decoder_clips.jsonl",
        columns={"psnr_clips": "clips, dB", "psnr_edit": "edit frame of pairs, dB"},
        curves={"psnr_clips": "clips", "psnr_edit": "edit frame"},
        title="decoder on clips: PSNR, dB",
        digits=1,
    ),
    "transformer": Course(
        file="embedded.jsonl",
        columns={
            "val_0.2": "σ = 0.2",
            "val_0.5": "0.5",
            "val_0.8": "0.8",
            "val_1.0": "1.0",
            "val_edit": "edit frame, 1.0",
            "val_clips_0.8": "clips, 0.8",
        },
        curves={"val_0.2": "σ = 0.2", "val_0.8": "0.8", "val_edit": "edit frame, 1.0", "val_clips_0.8": "clips, 0.8"},
        title="transformer: error of the velocity",
        digits=3,
        log_y=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the logs are; `update` is a page with a part for each, and `picture` the file of the curves."""

    logs: Path = ROOT / "recipes/cpu/logs"
    picture: Path = ROOT / "docs/pictures/training.svg"
    update: Path | None = None


def read(options: Options, course: Course) -> list[Record]:
    """The lines of a log that have figures of held-out data."""
    lines = (options.logs / course.file).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [record for record in records if all(key in record for key in course.columns)]


def rows(course: Course, records: Sequence[Record]) -> list[list[str]]:
    """At most ROWS of the records, denser at the beginning, the last one among them."""
    last = len(records) - 1
    chosen = sorted({round(last * (k / (ROWS - 1)) ** 2) for k in range(ROWS)}) if last >= ROWS else range(last + 1)
    return [
        [f"{r['minutes']:.0f}", str(r["step"]), *(f"{r[key]:.{course.digits}f}" for key in course.columns)]
        for r in (records[k] for k in chosen)
    ]


def panel(course: Course, records: Sequence[Record]) -> ET.Element:
    """The curves of one log."""
    series = {name: [(r["minutes"], r[key]) for r in records] for key, name in course.curves.items()}
    found = Plot(course.title, series, x="minutes", log_y=course.log_y).figure().find("svg")
    assert found is not None
    return found


def main(options: Options) -> None:
    """Print the tables and draw the curves."""
    drawn = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "height": str(HEIGHT)})
    drawn.set("width", str(WIDTH * len(COURSES)))
    ET.SubElement(drawn, "rect", {"width": "100%", "height": "100%", "fill": "#fff"})
    ET.SubElement(drawn, "style").text = SVG_STYLE
    for index, (name, course) in enumerate(COURSES.items()):
        records = read(options, course)
        text = table(("minute", "step", *course.columns.values()), rows(course, records))
        print(f"{name}\n\n{text}\n")
        if options.update is not None:
            update(options.update, f"{text}\n", f"course of the {name}")
        svg = panel(course, records)
        svg.attrib |= {"x": str(WIDTH * index), "width": str(WIDTH), "height": str(HEIGHT)}
        drawn.append(svg)
    write_files({options.picture: ET.tostring(drawn)})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
