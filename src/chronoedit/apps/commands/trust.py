"""The commands `eval judge-check` and `eval vote`: can a judge be trusted, and what do people prefer?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from chronoedit.apps.options import Switch, option
from chronoedit.apps.vlm_flags import VlmFlags

if TYPE_CHECKING:
    from chronoedit.evaluation.cases import Judge
    from chronoedit.evaluation.contest import Contest
    from chronoedit.evaluation.judge_check import JudgeCheck
    from chronoedit.evaluation.votes import Votes

BENCH = "pbench-edit"
"""The benchmark whose questions a judge of the small world is asked."""


@dataclass(frozen=True, kw_only=True)
class EvalJudgeCheck:
    """Show a judge edits of the small world, where the truth is known: how often is it right, which way does it lean?

    Each scene gives its true edit, the copied input, and targets spoiled on purpose. Writes verdicts.jsonl,
    summary.json and report.html. The same command goes on where it stopped.
    """

    output: Annotated[Path, option("the folder to write", shown="DIR", short="o")]
    judge: Annotated[
        str,
        option(
            "vlm (asks PBench-Edit's questions), reference (how near the truth), or a judge of known errors, such as "
            "synthetic:accuracy=0.8,bias=0.1",
            shown="NAME",
        ),
    ] = "vlm"
    items: Annotated[int, option("how many scenes", shown="N")] = 50
    first_seed: Annotated[int, option("the first scene's seed, 100000 or above", shown="N")] = 100_000
    family: Annotated[str | None, option("scenes of one family (default: each seed draws its own)", shown="NAME")] = (
        None
    )
    size: Annotated[int, option("side of the pictures", shown="PX")] = 256
    spoilings: Annotated[int, option("how many of the 5 ways of spoiling for each scene, in turns", shown="N")] = 5
    threshold: Annotated[float, option("mean score, 1 to 5, from which an edit passes", shown="X")] = 4.0
    concurrency: Annotated[int, option("pictures judged at once", shown="N")] = 4
    retry_failed: Annotated[Switch, option("ask again where it refused or could not be read")] = False
    dry_run: Annotated[Switch, option("print one question and about how many tokens all take; send nothing")] = False
    json: Annotated[Switch, option("print the summary as JSON")] = False
    vlm: VlmFlags

    def run(self) -> None:
        """Judge what is missing, print the figures. Raises as `run_check` does."""
        from chronoedit.evaluation.judge_check import read_judgements, run_check
        from chronoedit.evaluation.trust_pages import check_page, write_page
        from chronoedit.ledger import Ledger

        self._plan("")  # a mistake in the arguments shows before a model is opened
        if self.concurrency < 1:
            raise ValueError(f"--concurrency {self.concurrency} is below 1")
        if self.dry_run:
            self._print_dry()
            return
        with self._judge() as judge:
            check = self._plan(judge.name)
            with _bar() as bar:
                task = bar.add_task("judging", total=None)
                summary = run_check(
                    judge,
                    check,
                    self.output,
                    workers=self.concurrency,
                    retry_failed=self.retry_failed,
                    report=lambda done, total: bar.update(task, completed=done, total=total),
                )
        judgements, _ = read_judgements(Ledger(self.output / "verdicts.jsonl"), check)
        page = check_page(summary, judgements, judge=judge.name, size_px=self.size)
        report = write_page(page, self.output)
        if self.json:
            print(json.dumps(summary, allow_nan=False))
            return
        _print_check(summary, judge.name)
        print(report)

    def _plan(self, judge: str) -> JudgeCheck:
        from chronoedit.evaluation.benches import bench_named
        from chronoedit.evaluation.judge_check import JudgeCheck

        return JudgeCheck(
            items=self.items,
            first_seed=self.first_seed,
            size_px=self.size,
            family=self.family,
            spoilings=self.spoilings,
            scale=bench_named(BENCH).scale,
            threshold=self.threshold,
            judge={"name": judge, "bench": BENCH},
        )

    @contextmanager
    def _judge(self) -> Iterator[Judge]:
        """The judge, closed at the end. Raises ValueError for an unknown one, or flags that cannot be."""
        from chronoedit.evaluation.benches import bench_named
        from chronoedit.evaluation.judges import JUDGES, open_judge
        from chronoedit.evaluation.synthetic_judge import PREFIX, SyntheticJudge, parse_errors

        bench = bench_named(BENCH)
        name, _, _ = self.judge.partition(":")
        if name == PREFIX:
            yield SyntheticJudge(parse_errors(self.judge), scale=bench.scale, threshold=self.threshold)
            return
        if self.judge not in JUDGES:
            raise ValueError(f"there is no judge {self.judge!r}; choose from {', '.join(JUDGES)}, {PREFIX}:NAME=X,…")
        model = self.vlm.open() if self.judge == "vlm" else None
        try:
            yield open_judge(self.judge, bench, model)
        finally:
            if model is not None:
                model.close()

    def _print_dry(self) -> None:
        from PIL import Image

        from chronoedit.evaluation.benches import bench_named
        from chronoedit.evaluation.judge_check import TRUE, edited_picture, world_case
        from chronoedit.evaluation.judges import input_of
        from chronoedit.vlm.asking import estimate_tokens, shown
        from chronoedit.world import sample_item

        if self.judge != "vlm":
            raise ValueError(f"--dry-run with --judge {self.judge}: it sends nothing anyway; leave one of them out")
        item = sample_item(self.first_seed, family=self.family, size=self.size)
        case, edited = world_case(item), edited_picture(item, TRUE)
        assert edited is not None  # the true edit of a scene passes its own scorer
        asked = bench_named(BENCH).questions(case, input_of(case), Image.fromarray(edited))
        for each in asked:
            print(shown(each.question))
        pictures = self.items * len(self._plan("").kinds(self.first_seed))
        tokens = pictures * sum(estimate_tokens(each.question) for each in asked)
        print(f"at most {pictures} pictures, about {tokens} tokens, before repairs; nothing was sent", file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class EvalVote:
    """Let people choose between two editors' edits, side by side, without knowing whose they are.

    Opens a page on this machine alone (keys: left, right, down for a tie, u for undo) until it is interrupted, then
    prints who wins. Each vote is kept at once in votes.jsonl; the same command goes on.
    """

    a: tyro.conf.Positional[Path]
    """A folder that eval world or eval bench wrote, or pictures (with --inputs)."""

    b: tyro.conf.Positional[Path]
    """Another one, of the same items."""

    output: Annotated[Path, option("the folder for the votes", shown="DIR", short="o")]
    inputs: Annotated[
        Path | None, option("the pictures that were edited, equally named; prompts in .txt beside", shown="DIR")
    ] = None
    row_a: Annotated[str | None, option("row of A's run (default: the editor's own)", shown="NAME")] = None
    row_b: Annotated[str | None, option("row of B's run", shown="NAME")] = None
    items: Annotated[int | None, option("ask about so many, drawn at random (default: all)", shown="N")] = None
    seed: Annotated[int, option("of the order, and of who stands left", shown="N")] = 0
    voter: Annotated[str, option("who votes (default: the page asks)", shown="NAME")] = ""
    port: Annotated[int, option("of the page; 0 takes a free one", shown="N")] = 8756
    report: Annotated[Switch, option("open no page: only say what the votes so far say")] = False
    json: Annotated[Switch, option("print the summary as JSON")] = False

    def run(self) -> None:
        """Serve the page, then print and write the summary. Raises as `read_contest` and `Votes` do."""
        from chronoedit.evaluation.contest import read_contest
        from chronoedit.evaluation.run import write_json
        from chronoedit.evaluation.trust_pages import votes_page, write_page
        from chronoedit.evaluation.votes import Votes, check_voter, claim, summarise

        if self.items is not None and self.items < 1:
            raise ValueError(f"--items {self.items} is below 1")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port {self.port} is none; give 0 to 65535")
        if self.voter:
            check_voter(self.voter)
        contest = read_contest(self.a, self.b, inputs=self.inputs, row_a=self.row_a, row_b=self.row_b)
        names = [_named(folder, row) for folder, row in ((self.a, self.row_a), (self.b, self.row_b))]
        claim(self.output, {"a": names[0], "b": names[1], "seed": self.seed})
        votes = Votes(self.output / "votes.jsonl")
        if not self.report:
            self._serve(contest, votes)
            if not votes.all():
                return
        summary = {"a": names[0], "b": names[1], **summarise(votes.all())}
        write_json(self.output / "summary.json", summary)
        page = write_page(votes_page(summary, votes.all(), contest.pairs, names), self.output)
        if self.json:
            print(json.dumps(summary, allow_nan=False))
            return
        _print_votes(summary)
        print(page)

    def _serve(self, contest: Contest, votes: Votes) -> None:
        """Serve until interrupted. Raises OutputError when the port is taken."""
        from chronoedit.apps.vote_page import Booth, VoteServer
        from chronoedit.errors import OutputError

        try:
            server = VoteServer(
                Booth(contest, votes, seed=self.seed, items=self.items), port=self.port, voter=self.voter
            )
        except OSError as error:
            raise OutputError(
                f"port {self.port} cannot be had ({error.strerror or error}); choose another --port, or 0"
            ) from error
        if contest.left_out:
            print(f"{contest.left_out} items that only one of them has are left out", file=sys.stderr)
        print(f"vote at {server.url} (Ctrl-C ends it and counts)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
        finally:
            server.server_close()


def _named(folder: Path, row: str | None) -> str:
    return f"{folder.resolve()}" + (f" ({row})" if row else "")


def _bar() -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def _print_check(summary: Mapping[str, Any], judge: str) -> None:
    from chronoedit.evaluation.trust_pages import RATES, shown_rate

    title = f"{judge} on {summary['pictures']} pictures of {summary['items']} scenes, with 95 % intervals"
    rows = [(words, shown_rate(summary["overall"][name])) for name, words in RATES.items()]
    rows += [("refused", shown_rate(summary["refused"])), ("could not be read", shown_rate(summary["unreadable"]))]
    _print_table(title, ("", "rate"), rows)
    kinds = [(kind, of["score"], shown_rate(of["passed"])) for kind, of in summary["kinds"].items()]
    means = [(kind, "–" if score is None else f"{score['mean']:.2f}", passed) for kind, score, passed in kinds]
    _print_table("by kind of picture", ("", "mean score", "passed"), means)


def _print_votes(summary: Mapping[str, Any]) -> None:
    from chronoedit.evaluation.trust_pages import SIDE_COLUMNS, agreement_rows, shown_rate, side_rows

    print(f"A: {summary['a']}\nB: {summary['b']}")
    rows = []
    for name, of in {"all": summary["overall"], **summary["voters"]}.items():
        rows.append((name, shown_rate(of["ties_as_half"]), shown_rate(of["without_ties"]), *of["counts"].values()))
    columns = ("A wins", "a tie being half", "without ties", "A", "tie", "B")
    _print_table(f"{summary['votes']} votes on {summary['items']} items, with 95 % intervals", columns, rows)
    _print_table("sides, of votes that are no tie", SIDE_COLUMNS, side_rows(summary))
    if summary["agreement"]["pairs"]:
        _print_table("agreement", ("", "same winner", "kappa"), agreement_rows(summary))


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from chronoedit.report import shown

    table = Table(title=title, title_justify="left")
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k else "left")
    for row in rows:
        table.add_row(*map(shown, row))
    Console().print(table)


COMMANDS: dict[str, type[Any]] = {"eval judge-check": EvalJudgeCheck, "eval vote": EvalVote}
