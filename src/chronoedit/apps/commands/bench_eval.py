"""The commands `eval bench`, `eval bench-compare`, `eval pairs` and `eval agreement`: public benchmarks, and judges."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from chronoedit.apps.bench_tables import agreement_table, compared_table, summary_tables
from chronoedit.apps.options import DEFAULT_MODEL, ModelFlags, Switch, option
from chronoedit.apps.session import opened
from chronoedit.apps.vlm_flags import VlmFlags

if TYPE_CHECKING:
    from chronoedit.evaluation.bench_run import BenchRun
    from chronoedit.evaluation.cases import Bench, Case
    from chronoedit.evaluation.editors import CaseEditor
    from chronoedit.vlm.asking import VisionModel

OURS, NOBODY = "ours", "none"
ANSWERS = "answers.sqlite"


@dataclass(frozen=True, kw_only=True)
class OurFlags:
    """How our own editor edits; what is left out is the model's own."""

    reasoning: Annotated[bool, option("edit with temporal reasoning, or without")] = False
    num_reasoning_steps: Annotated[
        int | None, option("so many with reasoning", shown="N", also=("num-temporal-reasoning-steps",))
    ] = None
    num_inference_steps: Annotated[int | None, option("denoising steps", shown="N")] = None
    guidance_scale: Annotated[float | None, option("weight of the prompt", shown="X")] = None

    def settings(self) -> dict[str, Any]:
        """The fields of every request, as far as they are given."""
        given = {
            "reasoning": self.reasoning or None,
            "num_reasoning_steps": self.num_reasoning_steps,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class EvalBench:
    """Run an editor on a public benchmark, and have it scored: by a judge, and without one.

    NAME is one of pbench-edit, imgedit, gedit, rise, kris; DATA its public files. Beside the editor stand a copy of the
    input and noise. Writes run.json, edits.jsonl, images/, verdicts/, items.jsonl, summary.json and report.html. The
    same command goes on where it stopped; with another judge it judges the pictures that are there.
    """

    name: Annotated[str, tyro.conf.Positional, option("the benchmark", shown="NAME")]
    data: Annotated[Path, tyro.conf.Positional, option("its files: a folder, or the file in it", shown="DATA")]

    output: Annotated[Path, option("the folder to write", shown="DIR", short="o")]
    editor: Annotated[
        str, option("'ours', a folder of results, or \"command {input} {prompt} {output}\"", shown="EDITOR")
    ] = OURS
    editor_timeout_s: Annotated[float, option("for one run of a command", shown="S")] = 600.0
    judge: Annotated[str, option("vlm (asks a model), reference (how near to it), none", shown="NAME")] = "vlm"
    repeats: Annotated[int, option("edits of each item, with seeds one after the other", shown="N")] = 1
    seed: Annotated[int, option("the first seed", shown="N")] = 0
    limit: Annotated[int | None, option("the first items only", shown="N")] = None
    baselines: Annotated[bool, option("the rows copy and noise beside the editor")] = True
    concurrency: Annotated[int, option("pictures judged at once", shown="N")] = 4
    retry_failed: Annotated[Switch, option("do again what failed, was refused, or could not be read")] = False
    dry_run: Annotated[Switch, option("print what a judge would be asked, and about how many tokens")] = False
    ours: OurFlags = field(default_factory=OurFlags)
    model: ModelFlags = field(default_factory=ModelFlags)
    vlm: VlmFlags = field(default_factory=VlmFlags)

    def run(self) -> int:
        """Edit and judge what is missing, print the tables."""
        from chronoedit.evaluation.bench_run import BenchRun, check_bench, data_fingerprint
        from chronoedit.evaluation.benches import bench_named

        bench = bench_named(self.name)
        check_bench(bench)
        self._check()
        external = self._external()
        judging = None if self.judge == NOBODY else self._judge_model()
        cases = list(bench.read(self.data))
        run = BenchRun(
            bench=bench.name,
            data=data_fingerprint(cases),
            repeats=self.repeats,
            first_seed=self.seed,
            baselines=self.baselines,
        )
        cases = cases[: self.limit]
        if not cases:
            raise ValueError(f"{self.data} has no item of {bench.name}; check the path")
        if self.dry_run:
            _print_questions(bench, cases, len(run.turns()))
            return 0
        try:
            self._edit(cases, run, external)
            _give_back_memory()
            self._judge(bench, cases, run, judging)
        finally:
            if judging is not None:
                judging.close()
        self._finish(bench, cases, run)
        return 0

    def _check(self) -> None:
        from chronoedit.evaluation.judges import JUDGES

        if self.judge not in (*JUDGES, NOBODY):
            raise ValueError(f"there is no judge {self.judge!r}; choose from {', '.join(JUDGES)}, {NOBODY}")
        for name, value in (("limit", self.limit), ("concurrency", self.concurrency)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} {value} is below 1; give 1 or more")
        if self.editor != OURS and (self.ours != OurFlags() or self.model != ModelFlags()):
            raise ValueError(
                f"flags of our own model go with --editor {OURS}, and {self.editor!r} was given; leave them out"
            )
        self.model.check()
        self._request_check()

    def _request_check(self) -> None:
        """A mistake in the settings shows before a model is opened."""
        import numpy as np

        from chronoedit.request import EditRequest

        EditRequest(image=np.zeros((16, 16, 3), np.uint8), prompt="check", **self.ours.settings())

    def _external(self) -> CaseEditor | None:
        from chronoedit.evaluation.editors import open_external

        return None if self.editor == OURS else open_external(self.editor, self.editor_timeout_s, self.seed)

    def _judge_model(self) -> VisionModel | None:
        if self.judge != "vlm":
            return None
        return replace(self.vlm, vlm_answers=self.vlm.vlm_answers or self.output / ANSWERS).open()

    def _edit(self, cases: Sequence[Case], run: BenchRun, external: CaseEditor | None) -> None:
        from chronoedit.evaluation.bench_run import claim, is_edited
        from chronoedit.evaluation.editors import Ours

        if external is not None:
            claim(self.output, replace(run, editor=external.identity))
            self._edit_with(external, cases, run)
            return
        if is_edited(cases, run, self.output, retry_failed=self.retry_failed):
            claim(self.output, replace(run, editor=self._identity(self._known_hashes())))
            return
        with opened(self.model) as editor:
            identity = self._identity(editor.hashes)
            claim(self.output, replace(run, editor=identity))
            ours = Ours(editor=editor, name=identity["model"], identity=identity, settings=self.ours.settings())
            self._edit_with(ours, cases, run)

    def _edit_with(self, editor: CaseEditor, cases: Sequence[Case], run: BenchRun) -> None:
        from chronoedit.evaluation.bench_run import edit_cases
        from chronoedit.evaluation.embedding import embedder_there, open_embedder

        embedder = open_embedder() if embedder_there() else None
        with _bar("editing") as report:
            edit_cases(
                cases, editor, run, self.output, embedder=embedder, retry_failed=self.retry_failed, report=report
            )

    def _judge(self, bench: Bench, cases: Sequence[Case], run: BenchRun, model: VisionModel | None) -> None:
        from chronoedit.evaluation.bench_run import judge_edits
        from chronoedit.evaluation.judges import open_judge

        if self.judge == NOBODY:
            return
        with _bar("judging") as report:
            judge_edits(
                cases,
                lambda repeat: open_judge(self.judge, bench, model, repeat),
                run,
                self.output,
                workers=self.concurrency,
                retry_failed=self.retry_failed,
                report=report,
            )

    def _finish(self, bench: Bench, cases: Sequence[Case], run: BenchRun) -> None:
        from chronoedit.evaluation.bench_report import write_report
        from chronoedit.evaluation.bench_run import read_run
        from chronoedit.evaluation.bench_summary import items_of, summarise, write_items
        from chronoedit.evaluation.run import write_json

        items = items_of(cases, bench, self.output)
        write_items(items, self.output)
        told = {
            **read_run(self.output),
            "editor_name": self.model.model_path or DEFAULT_MODEL if self.editor == OURS else self.editor,
            "repeats": run.repeats,
            "data_path": str(self.data),
        }
        summary = {"run": told, **summarise(cases, bench, items)}
        write_json(self.output / "summary.json", summary)
        report = write_report(bench, summary, items, self.output)
        for table in summary_tables(summary):
            Console().print(table)
        print(report)

    def _identity(self, hashes: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "model": self.model.model_path or DEFAULT_MODEL,
            "lora_scale": list(self.model.lora_scale),
            "settings": self.ours.settings(),
            "hashes": dict(hashes),
        }

    def _known_hashes(self) -> Mapping[str, Any]:
        """What was written when the edits were made: a model is not opened only to be compared."""
        from chronoedit.evaluation.bench_run import read_run

        return read_run(self.output)["editor"].get("hashes", {})


@dataclass(frozen=True, kw_only=True)
class EvalBenchCompare:
    """Compare the editors of two runs of `eval bench` item by item, and say how small a difference could be seen."""

    a: Annotated[Path, option("the folder of one run", shown="DIR")]
    b: Annotated[Path, option("the folder of the other", shown="DIR")]
    judge_a: Annotated[str | None, option("whose verdicts on A, where there are several", shown="NAME")] = None
    judge_b: Annotated[str | None, option("on B (default: as for A)", shown="NAME")] = None
    json: Annotated[Switch, option("print one JSON object, with the figures of parts too")] = False

    def run(self) -> None:
        """Print the paired table. Raises OutputError for a folder without a run, ValueError for other items."""
        from chronoedit.evaluation.bench_summary import compare_runs

        found = compare_runs(self.a, self.b, self.judge_a, self.judge_b or self.judge_a)
        if self.json:
            _print_json(found)
            return
        Console().print(compared_table(found, f"A {self.a} less B {self.b}, {found['pairs']} items"))
        print("detectable: the true difference that as many items would show in 4 of 5 cases, at the 5 % level")


@dataclass(frozen=True, kw_only=True)
class EvalPairs:
    """Ask a vision-language model which of two editors did better, each item in both orders.

    A and B are folders of `eval bench`. A preference counts when both orders agree; all else is a tie. Writes
    pairs.jsonl, summary.json and report.html; the same command goes on where it stopped.
    """

    a: Annotated[Path, option("the folder of one run", shown="DIR")]
    b: Annotated[Path, option("the folder of the other", shown="DIR")]
    output: Annotated[Path, option("the folder to write", shown="DIR", short="o")]
    concurrency: Annotated[int, option("pairs judged at once", shown="N")] = 4
    vlm: VlmFlags = field(default_factory=VlmFlags)

    def run(self) -> None:
        """Ask about the pairs that are missing, print the counts."""
        from chronoedit.evaluation.bench_report import write_pairs_report
        from chronoedit.evaluation.pairs import read_pairs, run_pairs

        if self.concurrency < 1:
            raise ValueError(f"--concurrency {self.concurrency} is below 1; give 1 or more")
        model = replace(self.vlm, vlm_answers=self.vlm.vlm_answers or self.output / ANSWERS).open()
        try:
            with _bar("judging") as report:
                summary = run_pairs(model, (self.a, self.b), self.output, workers=self.concurrency, report=report)
        finally:
            model.close()
        path = write_pairs_report(summary, read_pairs(self.output), (self.a, self.b), self.output)
        names = ("pairs", "wins_a", "wins_b", "ties", "contradictions", "refused", "unread")
        print(", ".join(f"{summary[name]} {name.replace('_', ' ')}" for name in names))
        preferred = summary["a_preferred"]["overall"]
        if preferred is not None:
            low, high = preferred["interval"]
            print(f"A is preferred in {preferred['mean']:.1%} ({low:.1%} to {high:.1%}), a tie being half")
        print(path)


@dataclass(frozen=True, kw_only=True)
class EvalAgreement:
    """Say how far two judges agree on the same edits: equal scores, Cohen's kappa, and whose scores are higher."""

    a: Annotated[Path, option("the folder of one run", shown="DIR")]
    b: Annotated[Path | None, option("a copy that another judge has seen (default: the same)", shown="DIR")] = None
    judge_a: Annotated[str | None, option("whose verdicts of A, where there are several", shown="NAME")] = None
    judge_b: Annotated[str | None, option("whose of B", shown="NAME")] = None
    json: Annotated[Switch, option("print one JSON object")] = False

    def run(self) -> None:
        """Print the table. Raises OutputError for a folder without a run, ValueError for other edits."""
        from chronoedit.evaluation.agreement import agree_on_runs
        from chronoedit.evaluation.bench_summary import read_items

        found = agree_on_runs(read_items(self.a), read_items(self.b or self.a), self.judge_a, self.judge_b)
        if self.json:
            _print_json(found)
            return
        Console().print(agreement_table(found))


def _give_back_memory() -> None:
    """What our editor held, so that a judge on the same machine finds it free."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal, as what is told how far a job is."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_json(value: Mapping[str, Any]) -> None:
    import json

    print(json.dumps(value, ensure_ascii=False))


def _print_questions(bench: Bench, cases: Sequence[Case], edits: int) -> None:
    """What a judge would be asked of the first item, and about how many tokens all would take."""
    from chronoedit.evaluation.judges import input_of
    from chronoedit.vlm.asking import estimate_tokens, shown

    total = 0
    for number, case in enumerate(cases):
        before = input_of(case)
        for asked in bench.questions(case, before, before):
            total += estimate_tokens(asked.question) * edits
            if number == 0:
                print(shown(asked.question), end="\n\n")
    print(f"about {total} tokens for {len(cases)} items, {edits} pictures of each; nothing was sent", file=sys.stderr)


COMMANDS: dict[str, type[Any]] = {
    "eval bench": EvalBench,
    "eval bench-compare": EvalBenchCompare,
    "eval pairs": EvalPairs,
    "eval agreement": EvalAgreement,
}
