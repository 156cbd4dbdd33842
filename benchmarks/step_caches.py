"""Speed against success of the step caches, on the exact benchmark: the same scenes with each, beside no cache at all.

Work is counted in blocks of the transformer, which is the same on every machine; seconds are those of this one. Each
way has a folder of `chronoedit eval world` below the output; a run that was stopped goes on. With `--calibrate` nothing
is scored: the magnitudes that the cache "mag" needs are measured and printed, as `mag_ratios` of `chronoedit.json`; nor
with `--seconds`, which times whole edits one by one, the ways in turn, on an idle machine.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch
import tyro

from chronoedit.editing.editor import Editor
from chronoedit.editing.loading import load
from chronoedit.evaluation.run import WorldRun, compare_runs, read_records, run_world
from chronoedit.request import EditRequest
from chronoedit.runtime.stepcache import calibrated
from chronoedit.world import FIRST_EVALUATION_SEED, sample_item

BATCH = 8
ROUNDS = 4
PLAIN = "none"
HALF_GUIDED = "guidance-until 0.5"
HEAD = (
    "| step cache | whole passes | blocks run | seconds an edit | success | less no cache |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: |"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure; `caches` are values of `--step-cache`."""

    output: Path = Path("out/step_caches")
    model: str = "tiny"
    items: int = 200
    caches: tuple[str, ...] = (
        "first-block:0.05",
        "first-block:0.1",
        "first-block:0.2",
        "mag:0.02",
        "mag:0.05",
        "mag:0.1",
    )
    reasoning: bool = False
    num_inference_steps: int | None = None
    device: str | None = None
    calibrate: bool = False
    seconds: bool = False


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one way: means over its edits; `blocks` counts what passes ran of the transformer, `layers` of them whole."""

    computed: float
    total: float
    blocks: float
    seconds: float


def ways(options: Options) -> dict[str, dict[str, Any]]:
    """The settings of each way, by its name."""
    return {
        PLAIN: {},
        **{cache: {"step_cache": cache} for cache in options.caches},
        HALF_GUIDED: {"guidance_until": 0.5},
    }


def folder_of(options: Options, way: str) -> Path:
    """Where a way's run lies."""
    return options.output / way.replace(":", "-").replace(" ", "-")


def measure(editor: Editor, options: Options) -> None:
    """Run what is missing of every way."""
    for way, settings in ways(options).items():
        run = WorldRun(
            items=options.items,
            reasoning="on" if options.reasoning else "off",
            num_inference_steps=options.num_inference_steps,
            batch_size=BATCH,
            model={"name": options.model, **editor.hashes},
            **settings,
        )
        print(way, file=sys.stderr)
        run_world(lambda: editor, run, folder_of(options, way))


def cost(records: Sequence[Mapping[str, Any]], layers: int) -> Cost:
    """What the edits of a run took. Each knows the seconds of its whole batch."""
    rows = [record["rows"]["model"] for record in records]
    computed, total = (sum(row["passes"][k] for row in rows) / len(rows) for k in (0, 1))
    seconds = sum(row["time_s"] for row in rows[::BATCH]) / len(rows)
    return Cost(computed=computed, total=total, blocks=computed * layers + (total - computed), seconds=seconds)


def table(options: Options, layers: int) -> str:
    """The finished runs as Markdown: `whole passes` of all, of an edit; blocks in parts of those without a cache."""
    costs = {way: cost(read_records(folder_of(options, way)), layers) for way in ways(options)}
    lines = [HEAD]
    for way, found in costs.items():
        summary = json.loads((folder_of(options, way) / "summary.json").read_text(encoding="utf-8"))["model"]["overall"]
        low, high = summary["interval"]
        cells = [
            way,
            f"{found.computed:.1f} of {found.total:g}",
            f"{found.blocks / costs[PLAIN].blocks:.0%}",
            f"{found.seconds:.2f}",
            f"{summary['success']:.1%} ({low:.0%} to {high:.0%})",
            "" if way == PLAIN else _difference(options, way),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _difference(options: Options, way: str) -> str:
    overall = compare_runs(folder_of(options, way), folder_of(options, PLAIN))["overall"]
    low, high = overall["interval"]
    return f"{100 * overall['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def magnitudes(editor: Editor, options: Options) -> list[tuple[float, float]]:
    """Measured on scenes that the benchmark does not have, with the model's own steps."""
    with calibrated(editor.components.transformer) as found:
        for first in range(0, options.items, BATCH):
            scenes = [sample_item(seed) for seed in range(first, min(first + BATCH, options.items))]
            steps = options.num_inference_steps
            editor.edit_batch(
                [
                    EditRequest(image=scene.input, prompt=scene.prompt, seed=scene.seed, num_inference_steps=steps)
                    for scene in scenes
                ]
            )
    return [(round(sigma, 3), round(magnitude, 5)) for sigma, magnitude in found.magnitudes()]


def seconds(editor: Editor, options: Options) -> dict[str, float]:
    """Median seconds of a whole edit by each way, over rounds of all scenes; inputs are encoded anew each time."""
    items = [sample_item(FIRST_EVALUATION_SEED + k) for k in range(options.items)]
    taken: dict[str, list[float]] = {way: [] for way in ways(options)}
    for _ in range(ROUNDS + 1):
        for way, settings in ways(options).items():
            editor.cache.clear()
            start = time.perf_counter()
            for item in items:
                image = PIL.Image.fromarray(item.input)
                steps = options.num_inference_steps
                editor.edit(
                    EditRequest(
                        image=image,
                        prompt=item.prompt,
                        seed=item.seed,
                        num_inference_steps=steps,
                        reasoning=options.reasoning,
                        **settings,
                    )
                )
            taken[way].append((time.perf_counter() - start) / len(items))
    return {way: statistics.median(times[1:]) for way, times in taken.items()}  # the first round warms up


def main(options: Options) -> None:
    """Print the table, or what was calibrated, or seconds."""
    editor = load(options.model, device=options.device)
    if options.seconds:
        print(json.dumps({way: round(value, 3) for way, value in seconds(editor, options).items()}))
        return
    if options.calibrate:
        print(json.dumps({"mag_ratios": magnitudes(editor, options)}))
        return
    measure(editor, options)
    shown = table(options, editor.components.transformer.config.num_layers)
    (options.output / "table.md").write_text(shown + "\n", encoding="utf-8")
    print(f"{options.items} scenes, {torch.get_num_threads()} threads\n\n{shown}")


if __name__ == "__main__":
    main(tyro.cli(Options))
