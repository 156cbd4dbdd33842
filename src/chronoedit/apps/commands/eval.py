"""The commands `eval world` and `eval compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from chronoedit.apps.options import DEFAULT_MODEL, ModelFlags, Switch, option
from chronoedit.apps.scene_files import SceneFiles, WithScenes
from chronoedit.apps.session import opened
from chronoedit.apps.world_workers import InWorker, check_workers

if TYPE_CHECKING:
    from chronoedit.evaluation.attempts import External
    from chronoedit.evaluation.run import WorldEditor, WorldRun
    from chronoedit.world.plugins import SceneFile

OURS_ONLY = (
    *("model", "base", "reasoning", "both", "trajectory", "num_inference_steps", "num_reasoning_steps"),
    *("guidance_scale", "guidance_until", "step_cache", "precision", "lora_path", "lora_scale", "device"),
)
"""Fields of `EvalWorld` that say nothing to another editor."""


@dataclass(frozen=True, kw_only=True)
class EvalWorld:
    """Score a model, or any editor, on scenes that it has not seen: exactly, against what is true of them.

    Writes items.jsonl, summary.json, report.html, gallery.png and the edited pictures. The same command goes on where
    it stopped.
    """

    output: Annotated[Path, option("the folder to write", shown="DIR", short="o")]
    model: Annotated[
        str, option("'tiny' (embedded), folder, or hub id", shown="MODEL", also=("model-path", "model-id"))
    ] = DEFAULT_MODEL
    base: Annotated[str | None, option("where a single file's other components come from", shown="FOLDER")] = None
    editor: Annotated[
        str | None,
        option('instead of a model: a folder of SEED.png, or "command {input} {prompt} {output}"', shown="EDITOR"),
    ] = None
    editor_timeout_s: Annotated[float, option("for one run of a command", shown="S")] = 600.0
    retry_failed: Annotated[Switch, option("do those again that the editor gave no picture of")] = False
    items: Annotated[int, option("how many scenes", shown="N")] = 600
    first_seed: Annotated[int, option("the first scene's seed, 100000 or above", shown="N")] = 100_000
    family: Annotated[str | None, option("scenes of one family (default: each seed draws its own)", shown="NAME")] = (
        None
    )
    split: Annotated[
        str | None, option("scenes of one split, or of all in turn ('all', the default)", shown="NAME")
    ] = None
    scenes: SceneFiles = ()
    reasoning: Annotated[bool, option("edit with temporal reasoning, or without")] = False
    both: Annotated[Switch, option("with and without, and their paired difference")] = False
    trajectory: Annotated[Switch, option("score the reasoning frames too (slower)")] = False
    num_inference_steps: Annotated[int | None, option("denoising steps (default: the model's)", shown="N")] = None
    num_reasoning_steps: Annotated[
        int | None, option("so many with reasoning", shown="N", also=("num-temporal-reasoning-steps",))
    ] = None
    guidance_scale: Annotated[float | None, option("weight of the prompt (default: the model's)", shown="X")] = None
    guidance_until: Annotated[float | None, option("share of the steps that are guided", shown="X")] = None
    step_cache: Annotated[str | None, option("similar steps share work (see edit)", shown="NAME[:X]")] = None
    batch_size: Annotated[int, option("edits at once", shown="N")] = 8
    workers: Annotated[int, option("so many processes share the work, on a CPU", shown="N")] = 1
    precision: Annotated[
        Literal["bf16", "fp8", "int8", "int4"] | None, option("store the transformer's weights so")
    ] = None
    lora_path: Annotated[tuple[Path, ...], option("LoRA files, fused into the model", shown="FILE...")] = ()
    lora_scale: Annotated[tuple[float, ...], option("one for each LoRA, or one for all", shown="X...")] = ()
    device: Annotated[str | None, option("cpu, cuda, ... (default: GPU if there is one)", shown="NAME")] = None

    def run(self) -> None:
        """Run what is missing, print the tables. Raises as `run_world` does."""
        from chronoedit.world.plugins import registered

        with registered(self.scenes) as files:
            self._run(files)

    def _run(self, files: tuple[SceneFile, ...]) -> None:
        from chronoedit.evaluation.run import run_world

        external = None if self.editor is None else self._external(self.editor)
        check_workers(self.workers, self.device if external is None else "cpu")
        self._plan({}, files)  # a mistake in the arguments shows before a model is opened
        with self._factory(external) as (factory, identity), _bar() as report:
            summary = run_world(
                WithScenes(factory=factory, files=files) if self.workers > 1 else factory,
                self._plan(identity, files),
                self.output,
                report,
                workers=self.workers,
                retry_failed=self.retry_failed,
            )
        self._show(summary)

    @contextmanager
    def _factory(self, external: External | None) -> Iterator[tuple[Callable[[], WorldEditor], dict[str, Any]]]:
        """What makes the editor, here or in a worker, and what tells it from any other."""
        if external is not None:
            yield _Same(external), dict(external.editor.identity)
            return
        flags = self._flags()
        with opened(flags) as editor:
            stored = {} if self.precision is None else {"precision": self.precision}
            identity = {"name": self.model, **editor.hashes, "lora_scale": list(self.lora_scale), **stored}
            if self.workers == 1:
                yield _Same(editor), identity
                return
        del editor  # each worker opens its own
        yield InWorker(flags=flags, workers=self.workers), identity

    def _external(self, editor: str) -> External:
        from chronoedit.evaluation.attempts import External
        from chronoedit.evaluation.editors import open_external

        given = [f"--{each.name.replace('_', '-')}" for each in fields(self) if self._is_given(each)]
        if given:
            raise ValueError(f"{', '.join(given)}: for a model of ours, and --editor was given; leave them out")
        return External(open_external(editor, self.editor_timeout_s))

    def _is_given(self, flag: Field[Any]) -> bool:
        return flag.name in OURS_ONLY and getattr(self, flag.name) != flag.default

    def _flags(self) -> ModelFlags:
        flags = ModelFlags(
            model_path=self.model,
            base=self.base,
            lora_path=self.lora_path,
            lora_scale=self.lora_scale,
            device=self.device,
            precision=self.precision,
        )
        flags.check()
        return flags

    def _show(self, summary: Mapping[str, Any]) -> None:
        from chronoedit.evaluation.gallery import run_gallery
        from chronoedit.evaluation.run import read_records
        from chronoedit.evaluation.world_report import write_report
        from chronoedit.media import save_image

        seeds = range(self.first_seed, self.first_seed + self.items)
        records = [record for record in read_records(self.output) if record["seed"] in seeds]
        if any(record["rows"]["model"].get("error") is None for record in records):
            save_image(run_gallery(records, self.output), self.output / "gallery.png")
        report = write_report(summary, records, self.output)
        _print_summary(summary)
        print(self.output / "summary.json")
        print(report)

    def _plan(self, model: dict[str, Any], files: tuple[SceneFile, ...]) -> WorldRun:
        from chronoedit.evaluation.run import WorldRun

        return WorldRun(
            items=self.items,
            first_seed=self.first_seed,
            family=self.family,
            split=self.split,
            scenes={family: file.sha256 for file in files for family in file.families},
            reasoning="both" if self.both else "on" if self.reasoning else "off",
            trajectory=self.trajectory,
            num_inference_steps=self.num_inference_steps,
            num_reasoning_steps=self.num_reasoning_steps,
            guidance_scale=self.guidance_scale,
            guidance_until=self.guidance_until,
            step_cache=self.step_cache,
            batch_size=self.batch_size,
            model=model,
        )


@dataclass(frozen=True, kw_only=True)
class EvalCompare:
    """Compare two finished runs of `eval world` item by item: success of A less that of B."""

    a: Annotated[Path, option("the folder of one run", shown="DIR")]
    b: Annotated[Path, option("the folder of the other", shown="DIR")]
    output: Annotated[
        Path | None, option("write a page with the differences, and pictures", shown="FILE.html", short="o")
    ] = None
    scenes: SceneFiles = ()

    def run(self) -> None:
        """Print the paired table. Raises OutputError for a folder without a run, ValueError for other items."""
        from chronoedit.evaluation.run import compare_runs
        from chronoedit.evaluation.world_report import write_comparison
        from chronoedit.world.plugins import registered

        if self.output is not None and self.output.suffix != ".html":
            raise ValueError(f"--output {self.output} is no page; give a name that ends in .html")
        Console().print(_paired_table(compare_runs(self.a, self.b), f"{self.a} less {self.b}"))
        if self.output is not None:
            with registered(self.scenes):
                write_comparison(self.a, self.b, self.output)
            print(self.output)


@dataclass(frozen=True)
class _Same:
    """Gives the one editor that there is."""

    editor: WorldEditor

    def __call__(self) -> WorldEditor:
        return self.editor


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal, as what is told how far the run is."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("scoring", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_summary(summary: Mapping[str, Any]) -> None:
    from chronoedit.evaluation.summary import ROW_TITLES

    rows = [row for row in ROW_TITLES if row in summary]
    console = Console()
    title = f"success on {summary['items']} scenes, with 95 % intervals"
    console.print(_group_table({row: summary[row] for row in rows}, title, _success))
    if "splits" in summary:
        console.print(_group_table(summary["splits"], "by split", _success))
    console.print(_group_table(summary["edits"], "by edit", lambda group: f"{group['success']:.0%}"))
    if "paired" in summary:
        console.print(_paired_table(summary["paired"], "success with reasoning less success without"))


def _group_table(groups: Mapping[str, Any], title: str, cell: Callable[[Mapping[str, Any]], str]) -> Table:
    """Groups downwards, rows of the benchmark across; spoiled targets have no families."""
    table = Table(title=title, title_justify="left")
    for column in ("", *(row.replace("_", " ") for row in groups), "items"):
        table.add_column(column, justify="right" if column else "left")
    for name, of_model in groups["model"].items():
        cells = [cell(groups[row][name]) if name in groups[row] else "" for row in groups]
        table.add_row(name, *cells, str(of_model["items"]))
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


def _success(group: Mapping[str, Any]) -> str:
    low, high = group["interval"]
    return f"{group['success']:.1%}\n{100 * low:.0f} to {100 * high:.0f}"


COMMANDS: dict[str, type[Any]] = {"eval world": EvalWorld, "eval compare": EvalCompare}
