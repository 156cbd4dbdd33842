"""`chronoedit label`: from pictures before and after to the words that training needs."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chronoedit.apps.options import Switch, option
from chronoedit.apps.vlm_flags import VlmFlags
from chronoedit.errors import ChronoEditError, VlmError

if TYPE_CHECKING:
    from chronoedit.data.label import Label as FoundLabel
    from chronoedit.data.label import LabelSettings
    from chronoedit.data.label_job import AnswerAll, LabelJob, Row
    from chronoedit.vlm.asking import VisionModel


@dataclass(frozen=True, kw_only=True)
class PairFlags:
    """One pair."""

    input_image: Annotated[Path | None, option("the picture before the edit", shown="FILE")] = None
    output_image: Annotated[Path | None, option("the picture after it", shown="FILE")] = None
    output_file: Annotated[Path | None, option("where to write the words (default: printed)", shown="FILE")] = None

    def given(self) -> list[str]:
        """The flags that were given."""
        values = {
            "--input-image": self.input_image,
            "--output-image": self.output_image,
            "--output-file": self.output_file,
        }
        return [name for name, value in values.items() if value is not None]


@dataclass(frozen=True, kw_only=True)
class SetFlags:
    """A whole set."""

    output: Annotated[Path | None, option("the folder to write; go on there", shown="DIR", short="o")] = None
    dataset_base_path: Annotated[Path | None, option("where paths in the table start", shown="DIR")] = None
    upgrade: Annotated[Switch, option("keep the captions there are, ask only for their reasoning prompts")] = False
    prompts: Annotated[
        Literal["reasoning", "concise"], option("which are put into metadata.csv; concise ones take a question less")
    ] = "reasoning"
    concurrency: Annotated[int, option("questions at once (of each worker)", shown="N")] = 4
    shard: Annotated[str | None, option("do a part of the set: 1/4, 2/4, ...", shown="I/N")] = None
    review: Annotated[Path | None, option("also write a page with a sample of the rows", shown="FILE")] = None

    def given(self) -> list[str]:
        """The flags that were given."""
        default = SetFlags()
        names = (
            "output",
            "dataset_base_path",
            "upgrade",
            "prompts",
            "concurrency",
            "shard",
            "review",
        )
        return [f"--{n.replace('_', '-')}" for n in names if getattr(self, n) != getattr(default, n)]


@dataclass(frozen=True, kw_only=True)
class ClusterFlags:
    """A Ray cluster that does a set."""

    ray: Annotated[str | None, option("auto, HOST:PORT, or local for one here", shown="ADDRESS")] = None
    ray_workers: Annotated[int, option("worker processes there", shown="N")] = 1
    ray_gpus: Annotated[float, option("GPUs of each worker", shown="X")] = 0.0

    def check(self) -> None:
        """Raise ValueError for workers without a cluster."""
        if self.ray is None and self != ClusterFlags():
            raise ValueError("--ray-workers and --ray-gpus are for a cluster; give its address with --ray, or local")


@dataclass(frozen=True, kw_only=True)
class Label:
    """Put an edit into words, from the pictures before and after it: one pair, or a whole set.

    A vision-language model is asked for a concise instruction, then, with the pictures exchanged, whether it runs the
    right way, then for the reasoning prompt that training uses. A set is anything that training reads (table, jsonl,
    parquet, tar, folder), with or without captions; DIR/metadata.csv can be trained on as it is, and DIR/labels.jsonl
    has every row. The same command goes on where it stopped.
    """

    path: Annotated[
        tyro.conf.Positional[Path | None], option("a set: a folder, or its index file (none for one pair)", shown="SET")
    ] = None

    pair: PairFlags = field(default_factory=PairFlags)
    sets: SetFlags = field(default_factory=SetFlags)
    cluster: ClusterFlags = field(default_factory=ClusterFlags)
    vlm: VlmFlags = field(default_factory=VlmFlags)
    generate_cot: Annotated[Switch, option("the reasoning prompt too, where it is not asked for anyway")] = False
    max_resolution: Annotated[int, option("pictures are sent with a shortest side of so many px", shown="PX")] = 1080
    verify_direction: Annotated[bool, option("ask once more, with the pictures exchanged, or not")] = True
    seed: Annotated[int, option("of the answers, and of the sample for --review", shown="N")] = 0
    dry_run: Annotated[Switch, option("say what would be asked, and send nothing")] = False

    def run(self) -> int:
        """Label the pair or the set."""
        if self.path is None:
            return self._run_pair()
        if self.pair.given():
            raise ValueError(f"{', '.join(self.pair.given())} is for one pair, and a set was given too; leave one out")
        return self._run_set(self.path)

    def _run_pair(self) -> int:
        before, after = self.pair.input_image, self.pair.output_image
        if before is None or after is None:
            raise ValueError("give a pair (--input-image FILE --output-image FILE), or a set to be labelled")
        if self.sets.given() or self.cluster != ClusterFlags():
            raise ValueError(f"{', '.join(self.sets.given()) or '--ray'} is for a set, and a pair was given")
        from chronoedit.data.label import Labeller
        from chronoedit.data.label_plan import questions_about
        from chronoedit.media import check_writable, load_image
        from chronoedit.vlm.asking import shown

        settings = self._settings(reasoning=self.generate_cot)
        pictures = load_image(before), load_image(after)
        if self.dry_run:
            print("\n\n".join(shown(question) for question in questions_about(*pictures, settings)))
            return 0
        if self.pair.output_file is not None:
            check_writable(self.pair.output_file)
        model = self.vlm.open()
        try:
            label = Labeller(model=model, settings=settings).label_pair(*pictures)
        finally:
            model.close()
        self._write_pair(label)
        return 0

    def _write_pair(self, label: FoundLabel) -> None:
        """Write or print the words. Raises VlmError for a label with a problem."""
        from chronoedit.media import write_files

        if label.problem is not None:
            found = [text for name, text in label.checks.items() if name.startswith("wrong_")]
            print("\n".join(filter(None, [label.caption, *found])), file=sys.stderr)
            advice = "; --no-verify-direction takes its word" if label.problem.kind == "direction" else ""
            raise VlmError(f"{self.vlm.vlm_model}: {label.problem.message}{advice}")
        words = {"caption": label.caption, "caption_cot": label.caption_cot}
        text = json.dumps(words, indent=2, ensure_ascii=False) if self.generate_cot else label.caption
        if self.pair.output_file is None:
            print(text)
            return
        write_files({self.pair.output_file: f"{text}\n".encode()})
        print(self.pair.output_file)

    def _settings(self, reasoning: bool) -> LabelSettings:
        from chronoedit.data.label import LabelSettings

        if self.max_resolution < 16:
            raise ValueError(f"--max-resolution {self.max_resolution}; give 16 or more px (1080 is usual)")
        return LabelSettings(
            upgrade=self.sets.upgrade,
            reasoning=reasoning,
            verify_direction=self.verify_direction,
            shortest_side_px=self.max_resolution,
            seed=self.seed,
        )

    def _run_set(self, path: Path) -> int:
        from chronoedit.data.label_job import LabelJob, Shard
        from chronoedit.media import check_suffix, check_writable

        if self.sets.output is None:
            raise ValueError("give the folder to write: --output DIR")
        if self.sets.concurrency < 1:
            raise ValueError(f"--concurrency {self.sets.concurrency}; give 1 or more")
        self.cluster.check()
        settings = self._settings(reasoning=self.sets.prompts == "reasoning" or self.generate_cot)
        if self.sets.review is not None:
            check_suffix(self.sets.review, (".html",))
            check_writable(self.sets.review)
        job = LabelJob(
            source=path,
            output=self.sets.output,
            base=self.sets.dataset_base_path,
            shard=Shard() if self.sets.shard is None else Shard.parse(self.sets.shard),
            upgrade=self.sets.upgrade,
            model=self.vlm.vlm_model,
            revision=self.vlm.vlm_revision,
        )
        if self.dry_run:
            return _print_plan(job, settings)
        check_writable(job.labels)
        model = self.vlm.open()
        try:
            counts = self._label(job, self._answer_all(model, settings))
        finally:
            model.close()
        self._finish(job, counts)
        return 0

    def _label(self, job: LabelJob, answer_all: AnswerAll) -> Counter[str]:
        """Label what is left and write the table, which has what there is when the model is gone or Ctrl-C came."""
        from chronoedit.data.label_job import write_metadata

        columns = (TextColumn("labelled"), MofNCompleteColumn(), TextColumn("rows"), TimeElapsedColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=None)
            try:
                job.run(answer_all, lambda done: bar.update(task, completed=done))
            except (ChronoEditError, KeyboardInterrupt):
                if job.labels.exists():
                    write_metadata(job.labels, job.metadata, self.sets.prompts)
                raise
        return write_metadata(job.labels, job.metadata, self.sets.prompts)

    def _answer_all(self, model: VisionModel, settings: LabelSettings) -> AnswerAll:
        """What labels rows: threads here, which ask `model`, or the workers of a cluster, each with its own."""
        if self.cluster.ray is None:
            from chronoedit.vlm.concurrency import in_parallel

            work = _row_work(model, settings)
            return lambda rows: in_parallel(work, rows, self.sets.concurrency)
        from chronoedit.runtime.cluster import LOCAL, ClusterSettings, in_cluster

        if self.cluster.ray == LOCAL:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or a cluster started here reports to Ray's makers
        workers = self.cluster.ray_workers
        cluster = ClusterSettings(
            address=self.cluster.ray, workers=workers, threads=self.sets.concurrency, gpus=self.cluster.ray_gpus
        )
        make_work = partial(_opened_row_work, _share(self.vlm, workers), settings)
        return lambda rows: in_cluster(make_work, rows, cluster)

    def _finish(self, job: LabelJob, counts: Counter[str]) -> None:
        from chronoedit.data.label import KINDS
        from chronoedit.data.label_report import write_review

        total, labelled = counts.pop("rows", 0), counts.pop("labelled", 0)
        print(f"{job.labels}: {total} rows")
        print(f"  in {job.metadata.name}: {labelled}")
        for kind, count in counts.most_common():
            print(f"  {kind}: {count}{f' ({KINDS[kind]})' if kind in KINDS else ''}")
        if self.sets.review is not None:
            print(f"  review: {self.sets.review}, {write_review(job, self.sets.review, self.seed)} rows")
        print(job.metadata)


def _row_work(model: VisionModel, settings: LabelSettings) -> Callable[[Row], FoundLabel]:
    from chronoedit.data.label import Labeller

    labeller = Labeller(model=model, settings=settings)
    return lambda row: labeller.label(row.record)


def _opened_row_work(flags: VlmFlags, settings: LabelSettings) -> Callable[[Row], FoundLabel]:
    """What a worker of a cluster does with a row; made in the worker, which opens its own model once."""
    return _row_work(flags.open(), settings)


def _share(flags: VlmFlags, workers: int) -> VlmFlags:
    """The flags with one worker's part of the budget of requests. Raises ValueError for one that is too small."""
    if flags.vlm_max_requests is None:
        return flags
    if flags.vlm_max_requests < workers:
        raise ValueError(f"--vlm-max-requests {flags.vlm_max_requests} for {workers} workers; give one each at least")
    return replace(flags, vlm_max_requests=flags.vlm_max_requests // workers)


def _print_plan(job: LabelJob, settings: LabelSettings) -> int:
    from chronoedit.data.label_plan import plan_labels

    plan = plan_labels(job, settings)
    print(f"{job.source}: {plan.rows} rows, {plan.done} of them labelled")
    print(f"  questions: {plan.questions}, more where an answer has to be repaired")
    tokens = "unknown, as none of the first rows can be read" if plan.tokens is None else plan.tokens
    print(f"  tokens to send, about: {tokens}")
    if plan.example:
        print(f"\n{plan.example}")
    return 0


@dataclass(frozen=True, kw_only=True)
class LabelStats:
    """Count what is in a labels.jsonl: problems, lengths, models, the most frequent verbs."""

    path: tyro.conf.Positional[Path]
    """The labels.jsonl."""

    json: Annotated[Switch, option("print one JSON object")] = False

    def run(self) -> int:
        """Print the counts."""
        from chronoedit.data.label_file import read_labels
        from chronoedit.data.label_report import label_stats

        found = label_stats(read_labels(self.path)).to_json()
        if self.json:
            print(json.dumps(found))
            return 0
        print(f"{self.path}: {found.pop('rows')} rows")
        for name, value in found.items():
            print(f"  {name.replace('_', ' ')}: {_shown(value)}")
        return 0


def _shown(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    parts = (f"{name} {part:.4g}" if isinstance(part, float) else f"{name} {part}" for name, part in value.items())
    return ", ".join(parts) or "none"


COMMANDS: dict[str, type[Any]] = {"label": Label, "label stats": LabelStats}
