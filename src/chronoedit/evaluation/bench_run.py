"""A run of a benchmark: an editor and its baselines on every case, scored without a model and by judges.

In the folder: `run.json` says what is measured; `edits.jsonl` has one line an edit, written when it is done, and
`images/` the edited pictures; `verdicts/` has one file a judge, with one line a verdict. A run that was stopped goes on
where it was, and another judge finds the pictures there. `items.jsonl` and `summary.json` are made from these.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from chronoedit.errors import ChronoEditError, DataError, ImageError, OutputError
from chronoedit.ledger import Ledger, fingerprint
from chronoedit.ledger import claim as claim_file
from chronoedit.media import image_sha256, load_image, save_image
from chronoedit.vlm.concurrency import in_parallel

from .cases import Bench, Case, Judge, Verdict
from .editors import BASELINES, CaseEditor, file_stem
from .embedding import Embedder
from .judges import input_of
from .objective import objective

logger = logging.getLogger(__name__)

EDITOR = "editor"
"""The row of the editor itself; the others are those of BASELINES."""
Report = Callable[[int, int], None]
JudgeOf = Callable[[int], Judge]
"""The judge of a repeat, which is its seed."""


@dataclass(frozen=True, kw_only=True)
class BenchRun:
    """What is measured: each case edited `repeats` times, the noise's seeds counted from `first_seed` on.

    `editor` and `data` identify the editor and the cases, so that one folder never mixes two; `baselines` adds the
    rows of BASELINES, once each. Raises ValueError for what cannot be run.
    """

    bench: str
    data: str
    editor: Mapping[str, Any] = field(default_factory=dict)
    repeats: int = 1
    first_seed: int = 0
    baselines: bool = True

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.first_seed < 0:
            raise ValueError(
                f"{self.repeats} repeats from seed {self.first_seed}; give 1 or more, and a seed of 0 or above"
            )

    def identity(self) -> dict[str, Any]:
        """What must agree between the runs that share a folder: all but how often, and which rows beside."""
        return {"bench": self.bench, "data": self.data, "editor": dict(self.editor), "seed": self.first_seed}

    def turns(self) -> list[tuple[str, int]]:
        """(row, repeat) of all that is done with a case."""
        return [*((EDITOR, k) for k in range(self.repeats)), *((row, 0) for row in BASELINES if self.baselines)]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One edited picture of a run, or why there is none: a line of `edits.jsonl`.

    `input`, `reference` and `image` are the paths of the pictures within the folder, where there are any; `objective`
    are the scores without a model.
    """

    case: str
    row: str
    repeat: int
    seed: int
    category: str
    prompt: str
    input: str | None
    reference: str | None
    image: str | None
    image_sha256: str | None
    error: str | None
    time_s: float
    objective: Mapping[str, Any] | None

    @property
    def key(self) -> str:
        return edit_key(self.case, self.row, self.repeat)


def edit_key(case: str, row: str, repeat: int) -> str:
    """The name of an edit in the records of a run."""
    return f"{row}/{repeat}/{case}"


def data_fingerprint(cases: Iterable[Case]) -> str:
    """What tells one set of cases from another: keys and words. Raises ValueError for a key that is there twice."""
    words = {}
    for case in cases:
        if case.key in words:
            raise ValueError(f"the data has two items {case.key!r}; give each a key of its own")
        words[case.key] = case.prompt
    return fingerprint(sorted(words.items()))


def claim(folder: Path, run: BenchRun) -> None:
    """Write `run.json`, or check that it is of the same run. Raises OutputError when the folder holds another."""
    claim_file(folder / "run.json", run.identity(), "another run")


def read_run(folder: Path) -> dict[str, Any]:
    """What a folder says that it measures. Raises OutputError when it is no run."""
    path = folder / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OutputError(f"there is no {path}; give a folder that `chronoedit eval bench` wrote") from error
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}); choose another folder, or remove that one") from error
    if not isinstance(found, dict) or "bench" not in found:
        raise OutputError(f"{path} is of another kind of run; give a folder that `chronoedit eval bench` wrote")
    return found


def edit_cases(
    cases: Sequence[Case],
    editor: CaseEditor,
    run: BenchRun,
    folder: Path,
    *,
    embedder: Embedder | None = None,
    retry_failed: bool = False,
    report: Report | None = None,
) -> None:
    """Make the edits that `folder` lacks, and with `retry_failed` those that failed.

    An edit that fails is kept with its error. `report(done, total)` is called after each case. Raises OutputError when
    the folder cannot be written.
    """
    ledger = Ledger(folder / "edits.jsonl")
    for done, case in enumerate(cases, start=1):
        missing = [turn for turn in run.turns() if _is_missing(ledger, edit_key(case.key, *turn), retry_failed)]
        for edit in _edits_of(case, missing, editor, run, folder, embedder) if missing else ():
            ledger.append(edit.key, asdict(edit))
        if report is not None:
            report(done, len(cases))


def is_edited(cases: Sequence[Case], run: BenchRun, folder: Path, *, retry_failed: bool = False) -> bool:
    """Whether no edit is left to make, so that no editor need be opened."""
    ledger = Ledger(folder / "edits.jsonl")
    keys = (edit_key(case.key, *turn) for case in cases for turn in run.turns())
    return not any(_is_missing(ledger, key, retry_failed) for key in keys)


def read_edits(folder: Path) -> dict[str, Edit]:
    """The edits of a finished or stopped run by their keys, in the order of their making. Raises OutputError."""
    read_run(folder)
    records = Ledger(folder / "edits.jsonl").records()
    names = Edit.__dataclass_fields__
    edits = [Edit(**{name: value for name, value in record.items() if name in names}) for record in records]
    return {edit.key: edit for edit in edits}


def judge_edits(
    cases: Sequence[Case],
    judge_of: JudgeOf,
    run: BenchRun,
    folder: Path,
    *,
    workers: int = 1,
    retry_failed: bool = False,
    report: Report | None = None,
) -> str:
    """Have a judge score the edits that it has not scored yet; returns its name. Several are judged at once.

    With `retry_failed` it scores those anew that it refused or whose answers could not be read. Raises VlmError when
    the judge cannot be asked, OutputError when the folder cannot be written.
    """
    judges = {repeat: judge_of(repeat) for repeat in range(run.repeats)}
    ledger = Ledger(verdicts_path(folder, judges[0].name))
    edits = read_edits(folder)
    wanted = [(case, edits.get(edit_key(case.key, *turn))) for case in cases for turn in run.turns()]
    made = [(case, edit) for case, edit in wanted if edit is not None and edit.image is not None]
    left = [(case, edit) for case, edit in made if _is_unjudged(ledger, edit.key, retry_failed)]

    def verdict(asked: tuple[Case, Edit]) -> Verdict:
        case, edit = asked
        return judges[edit.repeat].score(case, load_image(folder / str(edit.image)))

    done = len(made) - len(left)
    for (_, edit), found in in_parallel(verdict, left, workers):
        ledger.append(edit.key, {"judge": judges[0].name, **asdict(found)})
        done += 1
        if report is not None:
            report(done, len(made))
    return judges[0].name


def read_verdicts(folder: Path) -> dict[str, dict[str, Verdict]]:
    """By judge, its verdicts by the edits' keys. Raises OutputError."""
    found: dict[str, dict[str, Verdict]] = {}
    for path in sorted((folder / "verdicts").glob("*.jsonl")):
        for record in Ledger(path).records():
            values = {name: record[name] for name in Verdict.__dataclass_fields__}
            found.setdefault(record["judge"], {})[record["key"]] = Verdict(**values)
    return found


def verdicts_path(folder: Path, judge: str) -> Path:
    """Where the verdicts of a judge lie."""
    return folder / "verdicts" / f"{file_stem(judge)}.jsonl"


def check_bench(bench: Bench) -> None:
    """Raise ValueError for a benchmark without both aggregations."""
    missing = [name for name in ("official", "strict") if name not in bench.aggregate]
    if missing:
        raise ValueError(f"benchmark {bench.name} has no aggregation {missing[0]!r}; it needs official and strict")


def _is_missing(ledger: Ledger, key: str, retry_failed: bool) -> bool:
    record = ledger.get(key)
    return record is None or (retry_failed and record["error"] is not None)


def _is_unjudged(ledger: Ledger, key: str, retry_failed: bool) -> bool:
    record = ledger.get(key)
    return record is None or (retry_failed and record["problem"] is not None)


def _edits_of(
    case: Case,
    turns: Sequence[tuple[str, int]],
    editor: CaseEditor,
    run: BenchRun,
    folder: Path,
    embedder: Embedder | None,
) -> Iterator[Edit]:
    try:
        before = input_of(case)
        reference = None if case.reference is None else load_image(case.reference.read())
    except (DataError, ImageError) as error:
        logger.warning("item %s cannot be read: %s", case.key, error)
        failed = [_kept(case, turn, run, error=f"the item cannot be read: {error}") for turn in turns]
        yield from (replace(edit, input=None, reference=None) for edit in failed)
        return
    save_image(before, folder / _image_path(case.key, "input"))
    if reference is not None:
        save_image(reference, folder / _image_path(case.key, "reference"))
    for turn in turns:
        started = time.perf_counter()
        row, repeat = turn
        try:
            edited = (editor if row == EDITOR else BASELINES[row]).edit(case, before, run.first_seed + repeat)
        except ChronoEditError as error:
            logger.warning("item %s: %s", case.key, error)
            logger.debug("where it came from:", exc_info=True)
            yield replace(_kept(case, turn, run, error=str(error)), time_s=time.perf_counter() - started)
            continue
        took = time.perf_counter() - started
        made = _kept(case, turn, run, image=_image_path(case.key, f"{row}-{repeat}"))
        save_image(edited, folder / str(made.image))
        scores = objective(before, edited, reference, embedder).to_json()
        yield replace(made, image_sha256=image_sha256(edited), time_s=took, objective=scores)


def _image_path(case: str, what: str) -> str:
    return f"images/{file_stem(case)}-{what}.png"


def _kept(
    case: Case,
    turn: tuple[str, int],
    run: BenchRun,
    *,
    image: str | None = None,
    error: str | None = None,
) -> Edit:
    row, repeat = turn
    return Edit(
        case=case.key,
        row=row,
        repeat=repeat,
        seed=run.first_seed + repeat,
        category=case.category,
        prompt=case.prompt,
        input=_image_path(case.key, "input"),
        reference=None if case.reference is None else _image_path(case.key, "reference"),
        image=image,
        image_sha256=None,
        error=error,
        time_s=0.0,
        objective=None,
    )
