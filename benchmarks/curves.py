"""What an edit costs as one thing about it grows: steps, reasoning steps, pixels, words of the prompt, variants.

Every point is a whole edit with the caches cleared, its seconds by stage; the line beside it is what counting says:
the plan's FLOPs at the speed of one large matrix product, which no edit can beat. Points of all curves are measured
in turns, round after round, so that a drift of the machine's speed falls on all of them. Leaves curves.json, .md, .svg.
"""

from __future__ import annotations

import json
import statistics
import sys
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from PIL import Image

import chronoedit
from chronoedit.editing.editor import Editor
from chronoedit.media import write_files
from chronoedit.model.frames import is_framewise
from chronoedit.report import HEIGHT, WIDTH, Plot
from chronoedit.runtime.machine import measure_throughput
from chronoedit.runtime.plan import make_plan
from chronoedit.runtime.plan_activations import autoencoder_flops, encoder_steps
from chronoedit.runtime.plan_facts import ModelFacts, read_facts
from chronoedit.runtime.plan_stages import Case, Machine, Work, latent_frames
from pages import commit, machine_line, update

TEMPORAL_TAPS = 3  # of which a frame that is coded on its own takes one
SENTENCE = "make the ball on the left of the cup red and leave all else as it is"
SVG_STYLE = (
    "text { fill: #60646c; font: 13px sans-serif } .axis { stroke: #dfe1e5 } path { fill: none; stroke-width: 2 } "
    ".s0 { stroke: #0b68c4 } .s1 { stroke: #d9822b } .s2 { stroke: #60646c; stroke-dasharray: 5 4 } .s3 { fill: none }"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure; `update` is a Markdown page in which the text between its `curves` comments is replaced."""

    model: str = "tiny"
    steps: tuple[int, ...] = (4, 8, 16, 24)
    reasoning_steps: tuple[int, ...] = (0, 2, 4, 8)
    side_px: tuple[int, ...] = (64, 128, 192, 256)
    words: tuple[int, ...] = (2, 20, 60, 120)
    variants: tuple[int, ...] = (1, 2, 4, 8)
    repeats: Annotated[int, tyro.conf.arg(help="rounds that are counted, after one that is not")] = 3
    output_dir: Path = Path("out/bench")
    update: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """An edit: what is varied from one point of its curve to the next, and all that it is."""

    curve: str
    value: int
    steps: int = 8
    reasoning_steps: int = 0
    side_px: int = 128
    words: int = 12
    variants: int = 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """A point's median seconds by stage, and the seconds below which no edit can come."""

    point: Point
    stages_s: dict[str, float]
    bound_s: dict[str, float]


def points(options: Options) -> list[Point]:
    """Those of all curves."""
    fields = ("steps", "reasoning_steps", "side_px", "words", "variants")
    return [
        replace(Point(curve=name, value=value), **{name: value}) for name in fields for value in getattr(options, name)
    ]


def edit(editor: Editor, point: Point) -> dict[str, float]:
    """The seconds of each stage of an edit with nothing in the cache."""
    editor.cache.clear()
    request = chronoedit.EditRequest(
        image=Image.linear_gradient("L").convert("RGB").resize((point.side_px, point.side_px)),
        prompt=" ".join(islice(cycle(SENTENCE.split()), point.words)),
        height=point.side_px,
        width=point.side_px,
        num_inference_steps=point.steps,
        num_reasoning_steps=point.reasoning_steps or None,
        guidance_scale=2.0,
        num_variants=point.variants,
        seed=0,
    )
    return {stage: seconds for stage, seconds in editor.edit(request).timings_s.items() if stage != "load"}


def bound(point: Point, facts: ModelFacts, flops_per_s: float, kind: Any, *, framewise: bool) -> dict[str, float]:
    """Seconds at the speed of a matrix product, by stage; `framewise` as `model.frames.is_framewise`."""
    work = Work(
        height=point.side_px,
        width=point.side_px,
        steps=point.steps,
        reasoning_steps=point.reasoning_steps,
        variants=point.variants,
        text_keys=min(point.words + 2, facts.text.tokens),
    )
    machine = Machine(kind=kind, device_bytes=1 << 50, host_bytes=1 << 50)
    seconds = {"encode": 0.0, "denoise": 0.0, "decode": 0.0}
    for stage in make_plan(Case(facts=facts, work=work, machine=machine)).stages:
        name = "encode" if stage.name.startswith(("encode", "embed")) else stage.name.split(",")[0]
        flops = stage.flops
        if framewise and stage.name == "encode the picture":
            steps = list(encoder_steps(facts.autoencoder, point.side_px, point.side_px))
            flops = latent_frames(facts, work) * autoencoder_flops(steps, 1) / TEMPORAL_TAPS
        if name in seconds:
            seconds[name] += flops / flops_per_s
    return {**seconds, "total": sum(seconds.values())}


def measure(options: Options) -> tuple[list[Row], float]:
    """All points, and the FLOP/s of a matrix product."""
    editor, facts = chronoedit.load(options.model), read_facts(options.model)
    device = editor.placement.device
    framewise = is_framewise(editor.components.autoencoder)
    flops_per_s = measure_throughput(device, editor.components.transformer.dtype, seconds=1.0)
    wanted = points(options)
    rounds = [[edit(editor, point) for point in wanted] for _ in range(options.repeats + 1)][1:]
    rows = []
    for index, point in enumerate(wanted):
        taken = [each[index] for each in rounds]
        median = {stage: statistics.median(times[stage] for times in taken) for stage in taken[0]}
        rows.append(
            Row(
                point=point, stages_s=median, bound_s=bound(point, facts, flops_per_s, device.type, framewise=framewise)
            )
        )
    return rows, flops_per_s


def table(rows: list[Row]) -> list[str]:
    """The rows of the Markdown table, a curve after the other."""
    lines = ["| what grows | value | encode | denoise | decode | whole | by counting | share |", "|---|" + "---:|" * 7]
    for row in rows:
        stages = [f"{row.stages_s.get(name, 0.0):.3f} s" for name in ("encode", "denoise", "decode", "total")]
        share = row.bound_s["total"] / row.stages_s["total"]
        cells = [row.point.curve.replace("_", " "), str(row.point.value), *stages]
        lines.append("| " + " | ".join([*cells, f"{row.bound_s['total']:.3f} s", f"{share:.0%}"]) + " |")
    return lines


def plot(rows: list[Row], file: Path) -> None:
    """A panel a curve: measured seconds of a whole edit and of its denoising, and those that counting gives."""
    curves = list(dict.fromkeys(row.point.curve for row in rows))
    size = {"width": str(WIDTH * len(curves)), "height": str(HEIGHT)}
    whole = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size})
    ET.SubElement(whole, "style").text = SVG_STYLE
    for index, curve in enumerate(curves):
        chosen = [row for row in rows if row.point.curve == curve]
        series = {
            "whole": [(row.point.value, row.stages_s["total"]) for row in chosen],
            "denoise": [(row.point.value, row.stages_s["denoise"]) for row in chosen],
            "by counting": [(row.point.value, row.bound_s["total"]) for row in chosen],
        }
        panel = Plot(curve, {**series, "": [(0, 0)]}, x=curve.replace("_", " ")).figure().find("svg")
        assert panel is not None
        panel.attrib |= {"x": str(WIDTH * index), "width": str(WIDTH), "height": str(HEIGHT)}
        whole.append(panel)
    write_files({file: ET.tostring(whole)})


def main(options: Options) -> None:
    """Measure and write."""
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows, flops_per_s = measure(options)
    lines = [
        f"Command: `{' '.join(['python benchmarks/curves.py', *sys.argv[1:]])}`  ",
        f"Machine: {machine_line(torch.get_num_threads())}; a large matrix product: {flops_per_s / 1e12:.3g} TFLOP/s  ",
        f"Commit: {commit()}  ",
        f"Model: {options.model}; guided, medians of {options.repeats} rounds; what does not grow is 8 steps, no "
        "reasoning, 128×128 px, 12 words, one variant.",
        "",
        *table(rows),
    ]
    text = "\n".join(lines) + "\n"
    (options.output_dir / "curves.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    (options.output_dir / "curves.md").write_text(text, encoding="utf-8")
    plot(rows, options.output_dir / "curves.svg")
    if options.update:
        update(options.update, text, "curves")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options))
