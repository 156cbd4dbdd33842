"""The command `batch`: many edits by one model, from a manifest, or of every picture of a folder."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from chronoedit import media
from chronoedit.apps.batch_memory import Fitted, fitted_rows
from chronoedit.apps.batch_processes import SharedBatch
from chronoedit.apps.batch_sheet import write_sheet
from chronoedit.apps.launch import is_first, own_device, stop_after_step, world_size
from chronoedit.apps.options import (
    DEFAULT_MODEL,
    MemoryFlags,
    ModelFlags,
    PublishedFlags,
    ReasoningFlags,
    SamplingFlags,
    Switch,
    build_request,
    option,
)
from chronoedit.apps.record import edit_metadata
from chronoedit.apps.session import bad_arguments, check_device, hush_libraries, opened
from chronoedit.data.manifest import (
    Manifest,
    Refusal,
    RowDefaults,
    every_combination,
    read_manifest,
    read_prompts,
)
from chronoedit.errors import DataError
from chronoedit.request import Progress

if TYPE_CHECKING:
    from chronoedit.editing.batch_job import Batch, BatchJob, EditAll
    from chronoedit.ledger import Ledger
    from chronoedit.model.settings import ModelSettings
    from chronoedit.runtime.cluster import ClusterSettings

DONE, FAILED, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True, kw_only=True)
class CombinationFlags:
    """Without a manifest: every picture of a folder with every prompt and every seed."""

    images: Annotated[Path | None, option("the folder with the pictures", shown="DIR")] = None
    prompts: Annotated[
        tuple[str, ...], option("the changes, in words; or .txt files with one a line", shown="TEXT|FILE...")
    ] = ()
    seeds: Annotated[tuple[int, ...], option("each edit with each of them", shown="N...")] = ()


@dataclass(frozen=True, kw_only=True)
class BatchFlags:
    """How the batch goes."""

    batch_size: Annotated[
        int | None, option("edits through the model at once (default: by their size, up to 16)", shown="N")
    ] = None
    video: Annotated[Switch, option("a video beside each picture: the reasoning, or from input to edit")] = False
    sheet: Annotated[Switch, option("also write DIR/sheet.png: all pictures beside their edits")] = False
    retry_failed: Annotated[Switch, option("do again what failed before")] = False


@dataclass(frozen=True, kw_only=True)
class BatchClusterFlags:
    """A Ray cluster that shares the work."""

    ray: Annotated[str | None, option("auto, HOST:PORT, or local for one here", shown="ADDRESS")] = None
    ray_workers: Annotated[int | None, option("processes there (default: one a GPU, else one a CPU)", shown="N")] = None

    def settings(self, device: str | None) -> ClusterSettings:
        """The cluster, with a worker for each GPU where there are any, else for each CPU. Raises ChronoEditError."""
        from chronoedit.runtime.cluster import LOCAL, ClusterSettings, resources_of

        assert self.ray is not None
        if self.ray == LOCAL:
            import torch

            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or a cluster started here reports to Ray's makers
            there = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
        else:
            there = resources_of(self.ray)
        gpus = 0 if device == "cpu" else int(there.get("GPU", 0))
        workers = self.ray_workers or gpus or int(there.get("CPU", 1))
        return ClusterSettings(address=self.ray, workers=workers, gpus=min(1.0, gpus / workers))


@dataclass(frozen=True, kw_only=True)
class BatchCommand:
    """Edit many pictures with one model, from a manifest, or a folder with prompts and seeds.

    chronoedit batch edits.csv -o DIR

    chronoedit batch --images photos --prompts "make it rain" "make it snow" --seeds 1 2 3 -o DIR

    A manifest has the columns image and prompt, and key, seed or other settings where they are wanted. DIR gets
    NAME-KEY.png, and a line an edit in results.jsonl. A row that cannot be done is told and passed
    over. The same command goes on where it stopped.
    """

    manifest: Annotated[
        tyro.conf.Positional[Path | None], option("a .csv or .jsonl file, a row an edit", shown="MANIFEST")
    ] = None

    output: Annotated[Path, option("the folder to write; go on there", shown="DIR", short="o")]
    combinations: CombinationFlags = CombinationFlags()
    negative_prompt: Annotated[str, option("what to avoid (best left out)", shown="TEXT")] = ""
    batch: BatchFlags = BatchFlags()
    cluster: BatchClusterFlags = BatchClusterFlags()
    sampling: SamplingFlags = SamplingFlags()
    reasoning: ReasoningFlags = ReasoningFlags()
    model: ModelFlags = ModelFlags()
    memory: MemoryFlags = MemoryFlags()
    published: PublishedFlags = PublishedFlags()

    def run(self) -> int:
        """Check all rows, do those that can be done, say what became of them. Raises as `BatchJob` and `opened`."""
        if not is_first():
            hush_libraries()
            self._shared(self.model).take_part(self.output)
            return DONE
        start = time.monotonic()
        with bad_arguments():
            self._check()
            manifest = self._manifest()
        for note in self.published.explain():
            print(f"note: {note}", file=sys.stderr)
        hush_libraries()
        from chronoedit.editing.batch_job import BatchJob, sort_out
        from chronoedit.model.checkpoint import open_checkpoint

        settings = open_checkpoint(self._model_path, device="cpu", base=self.model.base).settings
        items, impossible = sort_out(manifest.items, settings)
        refused = [*manifest.refused, *impossible]
        tell_refused(refused)
        job = BatchJob(
            folder=self.output,
            items=items,
            made_with=self._made_with(),
            batch_size=self.batch.batch_size,
            retry_failed=self.batch.retry_failed,
        )
        with ExitStack() as stack:
            with bad_arguments():
                ledger = stack.enter_context(job.held())
            fitted = self._fitted(job, ledger, settings)
            tell_refused(fitted.refused)
            job = replace(job, items=tuple(item for item in job.items if item.name not in fitted.names))
            left = len(job.left(ledger))
            stopped = self._edit(job, ledger, job.batches(ledger, settings), left, fitted.model)
            count = len(refused) + len(fitted.refused)
            return self._finish(job, ledger, left, count, stopped, time.monotonic() - start)

    @property
    def _model_path(self) -> str:
        return self.model.model_path or DEFAULT_MODEL

    def _check(self) -> None:
        """Raise ValueError and OutputError for flags that cannot be, whatever the rows are."""
        chosen = self.combinations
        if self.manifest is None and (chosen.images is None or not chosen.prompts):
            raise ValueError("say what to edit: a manifest (.csv, .jsonl), or --images DIR with --prompts")
        if self.manifest is not None and chosen != CombinationFlags():
            raise ValueError("--images, --prompts and --seeds take the place of a manifest; leave it out, or them")
        if chosen.seeds and self.sampling.seed is not None:
            raise ValueError("--seed and --seeds were both given; leave one out")
        if len(set(chosen.seeds)) < len(chosen.seeds):
            raise ValueError(f"--seeds {' '.join(map(str, chosen.seeds))} names one twice; leave it out")
        if chosen.images is not None and chosen.images.resolve() == self.output.resolve():
            raise ValueError(f"the results would lie among the pictures in {chosen.images}; choose another --output")
        if self.cluster.ray is None and self.cluster.ray_workers is not None:
            raise ValueError("--ray-workers is for a cluster; give its address with --ray, or local")
        if self.cluster.ray_workers is not None and self.cluster.ray_workers < 1:
            raise ValueError(f"--ray-workers {self.cluster.ray_workers} is below 1; give 1 or more")
        if self.batch.batch_size is not None and self.batch.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch.batch_size} is below 1; give 1 or more")
        build_request(Path("picture"), "any", self.negative_prompt, self.sampling, self.reasoning)
        self.model.check()
        if self.cluster.ray is not None and world_size() > 1:
            raise ValueError("--ray shares the work out itself; start the command without torchrun, or leave out --ray")
        if self.cluster.ray is None:
            check_device(self.model.device)
            own_device(self.model.device)
        media.check_writable(self.output / "results.jsonl")

    def _manifest(self) -> Manifest:
        """All rows, checked. Raises ValueError when there is nothing to read them from."""
        values: dict[str, Any] = {
            "negative_prompt": self.negative_prompt,
            "reasoning": self.reasoning.enable_temporal_reasoning,
            "num_reasoning_steps": self.reasoning.num_temporal_reasoning_steps,
            **{name: value for name, value in asdict(self.sampling).items() if name != "preset"},
        }
        given = {name: value for name, value in values.items() if not (value is None or value is False or value == "")}
        defaults = RowDefaults(values=given, preset=self.sampling.preset)
        try:
            if self.manifest is not None:
                return read_manifest(self.manifest, defaults)
            assert self.combinations.images is not None
            prompts = read_prompts(self.combinations.prompts)
            return every_combination(self.combinations.images, prompts, self.combinations.seeds, defaults)
        except DataError as error:
            raise ValueError(str(error)) from error

    def _made_with(self) -> dict[str, Any]:
        """What all results of the folder have in common."""
        return {
            "model": _absolute(self._model_path),
            "base": None if self.model.base is None else _absolute(self.model.base),
            "loras": [
                {"sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(), "scale": scale}
                for path, scale in self.model.loras()
            ],
            "precision": self.model.precision,
            "video": self.batch.video,
        }

    def _fitted(self, job: BatchJob, ledger: Ledger, settings: ModelSettings) -> Fitted:
        """The flags with which what is left fits, and what cannot; workers of a cluster have memory of their own."""
        from chronoedit.editing.batch_job import grouped

        if self.cluster.ray is not None:
            return Fitted(self.model)
        groups = grouped(job.left(ledger), settings)
        return fitted_rows(self.model, self.memory.memory, groups, self.batch.video)

    def _edit(self, job: BatchJob, ledger: Ledger, batches: list[Batch], left: int, model: ModelFlags) -> bool:
        """Do the batches; whether there was a Ctrl-C before the last of them."""
        from chronoedit.editing.batch_editor import BatchEditor, edit_here

        total, describe = len(job.items), partial(edit_metadata, model=self.model)
        with stop_after_step("batch") as should_stop, BatchBar(self.output, total=total, done=total - left) as bar:
            if world_size() > 1:
                self._shared(model).share_out(job, ledger, batches, should_stop, bar.on_item, bar.on_progress)
                return should_stop()
            if not batches:
                return False
            if self.cluster.ray is not None:
                job.run(ledger, batches, self._in_cluster(should_stop), bar.on_item)
                return should_stop()
            with opened(model) as editor:
                batch_editor = BatchEditor(editor, describe, video=self.batch.video)
                edit_all = partial(edit_here, batch_editor, on_progress=bar.on_progress, should_stop=should_stop)
                job.run(ledger, batches, edit_all, bar.on_item)
            return should_stop()

    def _shared(self, model: ModelFlags) -> SharedBatch:
        """How each of several processes edits."""
        describe = partial(edit_metadata, model=self.model)
        return SharedBatch(model=model, describe=describe, video=self.batch.video)

    def _in_cluster(self, should_stop: Callable[[], bool]) -> EditAll:
        """What edits batches in the workers of a cluster, each with a model of its own."""
        from chronoedit.editing.batch_editor import packed, worker
        from chronoedit.editing.coding import Coding
        from chronoedit.editing.loading import EditorLoader
        from chronoedit.runtime.cluster import in_cluster

        load = EditorLoader(
            path=_absolute(self._model_path),
            device=self.model.device,
            base=None if self.model.base is None else _absolute(self.model.base),
            offload=self.model.offload,
            precision=self.model.precision,
            attention=self.model.attention,
            compile=self.model.compile,
            coding=Coding(tile_px=self.model.vae_tiling),
            loras=tuple((_absolute(path), scale) for path, scale in self.model.loras()),
        )
        make_work = partial(worker, load, partial(edit_metadata, model=self.model), self.batch.video)
        settings = self.cluster.settings(self.model.device)
        return lambda batches: (
            (sent.batch, outcomes) for sent, outcomes in in_cluster(make_work, packed(batches, should_stop), settings)
        )

    def _finish(
        self, job: BatchJob, ledger: Ledger, left_before: int, refused: int, stopped: bool, seconds: float
    ) -> int:
        """Write the sheet, say what became of all, and give the exit code."""
        records = [record for item in job.items if (record := ledger.get(item.name)) is not None]
        failed = sum(record["status"] == "failed" for record in records)
        left = len(job.items) - len(records)
        if self.batch.sheet and len(records) > failed:
            for path in write_sheet(self.output, records):
                print(path)
        parts = [f"{len(records) - failed} of {len(job.items) + refused} edits done"]
        parts += [f"{len(job.items) - left_before} of them before"] if left_before < len(job.items) else []
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{refused} rows not done"] if refused else []
        made = left_before - left
        parts += [f"{seconds:.1f} s, {seconds / made:.2f} s an edit"] if made > 0 else []
        print(f"{', '.join(parts)}: {job.folder / 'results.jsonl'}", file=sys.stderr)
        if left and stopped:
            print(f"stopped with {left} left; the same command goes on", file=sys.stderr)
            return INTERRUPTED
        return FAILED if failed or refused else DONE


def tell_refused(refused: Sequence[Refusal]) -> None:
    """A line for each row that is not done."""
    for refusal in refused:
        print(f"not done: {refusal.place}: {refusal.reason}", file=sys.stderr)


class BatchBar:
    """A context that shows how many edits are done and how long the rest takes, and a line for each.

    The bar is on stderr where that is a terminal; each picture's path is a line on stdout.
    """

    def __init__(self, folder: Path, *, total: int, done: int, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._bars = Bars(
            TextColumn("edits"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),  # else the paths would go where the bar is
            speed_estimate_period=3600,
        )
        self._folder = folder
        self._done = float(done)
        self._task = self._bars.add_task("", total=total, completed=done)

    def __enter__(self) -> BatchBar:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def on_progress(self, batch: Batch, progress: Progress) -> None:
        """The batch under way counts by the steps that are done, as far as its items are new."""
        if progress.stage == "denoise" and progress.total:
            self._bars.update(self._task, completed=self._done + len(batch.wanted) * progress.done / progress.total)

    def on_item(self, record: dict[str, Any]) -> None:
        """An item is done, or has failed."""
        self._done += 1
        self._bars.update(self._task, completed=self._done)
        if record["status"] == "failed":
            print(f"failed: {record['row']}: {record['error']}", file=sys.stderr)
            return
        print(self._folder / record["files"][0])
        width, height = record["size"]
        print(f"{width}x{height} px, seed {record['seed']}, {record['time_s']:.1f} s", file=sys.stderr)


def _absolute(name: str) -> str:
    """A file or folder by its whole path; the name of a model as it is."""
    return os.path.abspath(name) if os.path.exists(name) else name


COMMANDS: dict[str, type[Any]] = {"batch": BatchCommand}
