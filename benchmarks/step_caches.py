"""Speed against success of the step caches, on the exact benchmark: the same scenes with each, beside no cache at all.

Work is counted in blocks of the transformer, which is the same on every machine; seconds are those of this one. Each
way has a folder of `chronoedit eval world` below the output; a run that was stopped goes on. With `--calibrate` nothing
is scored: the magnitudes that the cache "mag" needs are measured and printed, as `mag_ratios` of `chronoedit.json`; nor
with `--seconds`, which times whole edits one by one, the ways in turn, on an idle machine. Its figures are kept in the
output, and the table takes them from there.
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
from chronoedit.evaluation.run import WorldRun, compare_runs, read_records, run_world, write_json
from chronoedit.media import atomic_path
from chronoedit.model.checkpoint import locate
from chronoedit.request import EditRequest
from chronoedit.runtime.stepcache import calibrated
from chronoedit.world import FIRST_EVALUATION_SEED, sample_item
from pages import measured_by, points, share, update
from pages import table as markdown_table

BATCH = 8
ROUNDS = 4
PLAIN = "none"
HALF_GUIDED = "guidance-until 0.5"
HEAD = ("step cache", "whole passes", "blocks run", "seconds an edit", "success", "less no cache")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure; `caches` are values of `--step-cache`.

    With `keep` what is calibrated is written into the model's `chronoedit.json`. `update` is a page with a part
    `step caches`.
    """

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
    keep: bool = False
    seconds: bool = False
    update: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one way: means over its edits; `blocks` counts what passes ran of the transformer, `layers` of them whole."""

    computed: float
    total: float
    blocks: float


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
    """What the edits of a run took."""
    rows = [record["rows"]["model"] for record in records]
    computed, total = (sum(row["passes"][k] for row in rows) / len(rows) for k in (0, 1))
    return Cost(computed=computed, total=total, blocks=computed * layers + (total - computed))


def table(options: Options, layers: int) -> str:
    """The finished runs as Markdown: `whole passes` of all, of an edit; blocks in parts of those without a cache."""
    costs = {way: cost(read_records(folder_of(options, way)), layers) for way in ways(options)}
    timed = timed_seconds(options)
    lines = []
    for way, found in costs.items():
        summary = json.loads((folder_of(options, way) / "summary.json").read_text(encoding="utf-8"))["model"]["overall"]
        cells = [
            way,
            f"{found.computed:.1f} of {found.total:g}",
            f"{found.blocks / costs[PLAIN].blocks:.0%}",
            f"{timed[way]:.2f}" if way in timed else "",
            share(summary),
            "" if way == PLAIN else _difference(options, way),
        ]
        lines.append(cells)
    return markdown_table(HEAD, lines)


def timed_seconds(options: Options) -> dict[str, float]:
    """What `--seconds` has found, by way; {} before."""
    path = options.output / "seconds.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _difference(options: Options, way: str) -> str:
    return points(compare_runs(folder_of(options, way), folder_of(options, PLAIN))["overall"])


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


def keep(model: str, found: Sequence[tuple[float, float]]) -> None:
    """Write magnitudes into the settings of a model, a line for all of them."""
    path = locate(model).folder / "chronoedit.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    others = json.dumps({name: value for name, value in settings.items() if name != "mag_ratios"}, indent=2)
    with atomic_path(path) as temporary:
        pairs = json.dumps(found)
        temporary.write_text(f'{others[:-2]},\n  "mag_ratios": {pairs}\n}}\n', encoding="utf-8")


def main(options: Options) -> None:
    """Print the table, or what was calibrated, or seconds."""
    editor = load(options.model, device=options.device)
    if options.seconds:
        taken = {way: round(value, 3) for way, value in seconds(editor, options).items()}
        options.output.mkdir(parents=True, exist_ok=True)
        write_json(options.output / "seconds.json", taken)
        print(json.dumps(taken))
        return
    if options.calibrate:
        found = magnitudes(editor, options)
        print(json.dumps({"mag_ratios": found}))
        if options.keep:
            keep(options.model, found)
        return
    measure(editor, options)
    shown = table(options, editor.components.transformer.config.num_layers)
    (options.output / "table.md").write_text(shown + "\n", encoding="utf-8")
    print(f"{options.items} scenes, {torch.get_num_threads()} threads\n\n{shown}")
    if options.update:
        computed = f"{editor.components.dtype} on {editor.placement.device.type}"
        facts = f"Items: {options.items}, {'with' if options.reasoning else 'without'} reasoning; {computed}"
        update(options.update, f"{measured_by(facts)}\n{shown}\n", "step caches")


if __name__ == "__main__":
    main(tyro.cli(Options))
