"""The commands `eval world` and `eval compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from chronoedit.apps.options import DEFAULT_MODEL, ModelFlags, Switch, option
from chronoedit.apps.session import opened

if TYPE_CHECKING:
    from chronoedit.evaluation.run import WorldRun

TITLES = {
    "model": "model",
    "no_reasoning": "model, no reasoning",
    "copy": "copy the input",
    "oracle": "oracle (truth through the autoencoder)",
    "spoiled": "spoiled targets",
}


@dataclass(frozen=True, kw_only=True)
class EvalWorld:
    """Score a model on scenes that it has not seen, beside copying the input, the oracle and spoiled targets.

    Writes items.jsonl, summary.json, gallery.png and the edited pictures. The same command goes on where it stopped.
    """

    output: Annotated[Path, option("the folder to write", shown="DIR", short="o")]
    model: Annotated[
        str, option("'tiny' (embedded), folder, or hub id", shown="MODEL", also=("model-path", "model-id"))
    ] = DEFAULT_MODEL
    items: Annotated[int, option("how many scenes", shown="N")] = 200
    first_seed: Annotated[int, option("the first scene's seed, 100000 or above", shown="N")] = 100_000
    family: Annotated[str | None, option("scenes of one family (default: each seed draws its own)", shown="NAME")] = (
        None
    )
    reasoning: Annotated[bool, option("edit with temporal reasoning, or without")] = False
    both: Annotated[Switch, option("with and without, and their paired difference")] = False
    trajectory: Annotated[Switch, option("score the reasoning frames too (slower)")] = False
    num_inference_steps: Annotated[int | None, option("denoising steps (default: the model's)", shown="N")] = None
    num_reasoning_steps: Annotated[
        int | None, option("so many with reasoning", shown="N", also=("num-temporal-reasoning-steps",))
    ] = None
    guidance_scale: Annotated[float | None, option("weight of the prompt (default: the model's)", shown="X")] = None
    guidance_until: Annotated[float | None, option("share of the steps that are guided", shown="X")] = None
    batch_size: Annotated[int, option("edits at once", shown="N")] = 8
    precision: Annotated[
        Literal["bf16", "fp8", "int8", "int4"] | None, option("store the transformer's weights so")
    ] = None
    lora_path: Annotated[tuple[Path, ...], option("LoRA files, fused into the model", shown="FILE...")] = ()
    lora_scale: Annotated[tuple[float, ...], option("one for each LoRA, or one for all", shown="X...")] = ()
    device: Annotated[str | None, option("cpu, cuda, ... (default: GPU if there is one)", shown="NAME")] = None

    def run(self) -> None:
        """Run what is missing, print the table. Raises as `run_world` does."""
        from chronoedit.evaluation.gallery import run_gallery
        from chronoedit.evaluation.run import read_records, run_world
        from chronoedit.media import save_image

        flags = ModelFlags(
            model_path=self.model,
            lora_path=self.lora_path,
            lora_scale=self.lora_scale,
            device=self.device,
            precision=self.precision,
        )
        flags.check()
        self._plan({})  # a mistake in the arguments shows before the model is opened
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with (
            opened(flags) as editor,
            Progress(*columns, console=console, disable=not console.is_terminal) as bar,
        ):
            stored = {} if self.precision is None else {"precision": self.precision}
            run = self._plan({"name": self.model, **editor.hashes, "lora_scale": list(self.lora_scale), **stored})
            task = bar.add_task("scoring", total=self.items)
            summary = run_world(
                lambda: editor, run, self.output, lambda done, total: bar.update(task, completed=done, total=total)
            )
        seeds = range(self.first_seed, self.first_seed + self.items)
        records = [record for record in read_records(self.output) if record["seed"] in seeds]
        save_image(run_gallery(records, self.output), self.output / "gallery.png")
        _print_summary(summary)
        print(self.output / "summary.json")

    def _plan(self, model: dict[str, Any]) -> WorldRun:
        from chronoedit.evaluation.run import WorldRun

        return WorldRun(
            items=self.items,
            first_seed=self.first_seed,
            family=self.family,
            reasoning="both" if self.both else "on" if self.reasoning else "off",
            trajectory=self.trajectory,
            num_inference_steps=self.num_inference_steps,
            num_reasoning_steps=self.num_reasoning_steps,
            guidance_scale=self.guidance_scale,
            guidance_until=self.guidance_until,
            batch_size=self.batch_size,
            model=model,
        )


@dataclass(frozen=True, kw_only=True)
class EvalCompare:
    """Compare two finished runs of `eval world` item by item: success of A less that of B."""

    a: Annotated[Path, option("the folder of one run", shown="DIR")]
    b: Annotated[Path, option("the folder of the other", shown="DIR")]

    def run(self) -> None:
        """Print the paired table. Raises OutputError for a folder without a run, ValueError for other items."""
        from chronoedit.evaluation.run import compare_runs

        Console().print(_paired_table(compare_runs(self.a, self.b), f"{self.a} less {self.b}"))


def _print_summary(summary: Mapping[str, Any]) -> None:
    rows = [row for row in TITLES if row in summary]
    groups = ["overall", *sorted(name for name in summary[rows[0]] if name != "overall")]
    table = Table(title=f"success on {summary['items']} scenes, with 95 % intervals", title_justify="left")
    table.add_column("")
    for group in groups:
        table.add_column(group, justify="right")
    for row in rows:
        table.add_row(TITLES[row], *(_success(summary[row].get(group)) for group in groups))
    console = Console()
    console.print(table)
    console.print(_edits_table(summary))
    if "paired" in summary:
        console.print(_paired_table(summary["paired"], "success with reasoning less success without"))


def _edits_table(summary: Mapping[str, Any]) -> Table:
    edits = summary["edits"]
    table = Table(title="by edit", title_justify="left")
    table.add_column("")
    names = sorted(edits["model"])
    for row in edits:
        table.add_column(row, justify="right")
    table.add_column("items", justify="right")
    for name in names:
        table.add_row(
            name, *(f"{edits[row][name]['success']:.0%}" for row in edits), str(edits["model"][name]["items"])
        )
    return table


def _paired_table(paired: Mapping[str, Any], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("", "difference", "95 % interval", "items"):
        table.add_column(column, justify="left" if not column else "right")
    for name, group in paired.items():
        if name != "rows":
            low, high = group["interval"]
            table.add_row(name, f"{group['difference']:+.1%}", f"{low:+.1%} to {high:+.1%}", str(group["items"]))
    return table


def _success(group: Mapping[str, Any] | None) -> str:
    if group is None:
        return ""
    low, high = group["interval"]
    return f"{group['success']:.1%}  ({low:.0%} to {high:.0%})"


COMMANDS: dict[str, type[Any]] = {"eval world": EvalWorld, "eval compare": EvalCompare}
