"""Does a judge deserve trust? It is shown edits of the small world, where the truth about each is known.

Each item gives its true edit, targets spoiled on purpose, and its input copied. In the folder: `run.json` says what is
measured, `verdicts.jsonl` has one line a picture, written when it is judged, and `summary.json` comes last. A check
that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from chronoedit.ledger import Ledger, claim
from chronoedit.media import encode_image
from chronoedit.vlm.concurrency import in_parallel
from chronoedit.world import FIRST_EVALUATION_SEED, SCENES, Item, sample_item

from .cases import Case, Judge, Verdict
from .physics import score
from .run import write_json
from .spoil import SPOILINGS, spoiled
from .trust import COPY, TRUE, Judgement, summarise

Report = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class JudgeCheck:
    """What is measured: `items` items from `first_seed` on, drawn at `size_px`, `spoilings` spoiled targets of each.

    The ways of spoiling take turns from item to item. A picture passes when the mean of its scores is `threshold` or
    more on the judge's `scale`. `judge` identifies the judge, so that one folder never mixes two. Raises ValueError for
    what cannot be run.
    """

    items: int = 50
    first_seed: int = FIRST_EVALUATION_SEED
    size_px: int = 256
    family: str | None = None
    spoilings: int = len(SPOILINGS)
    scale: tuple[float, float] = (1.0, 5.0)
    threshold: float = 4.0
    judge: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.items < 1:
            raise ValueError(f"items {self.items} must be 1 or more")
        if self.first_seed < FIRST_EVALUATION_SEED:
            raise ValueError(
                f"first seed {self.first_seed} is one that training may use; start at {FIRST_EVALUATION_SEED} or above"
            )
        if self.size_px < 16 or self.size_px % 16:
            raise ValueError(f"size {self.size_px} is not a positive multiple of 16; use 128 or 256")
        if self.family is not None and self.family not in SCENES:
            raise ValueError(f"family {self.family!r} is unknown; choose from {', '.join(SCENES)}")
        if not 1 <= self.spoilings <= len(SPOILINGS):
            raise ValueError(f"spoilings {self.spoilings} must be from 1 to {len(SPOILINGS)}, the ways there are")
        low, high = self.scale
        if not low < self.threshold <= high:
            raise ValueError(f"threshold {self.threshold:g} must be above {low:g} and at most {high:g}, the best score")

    def identity(self) -> dict[str, Any]:
        """What must agree between checks that share a folder: all but how many items, and the threshold."""
        return {name: value for name, value in asdict(self).items() if name not in ("items", "threshold")}

    def kinds(self, seed: int) -> tuple[str, ...]:
        """The pictures of one item: the true edit, the copy, and the ways of spoiling whose turn it is."""
        ways = list(SPOILINGS)
        turn = (seed - self.first_seed) * self.spoilings
        return TRUE, COPY, *(ways[(turn + k) % len(ways)] for k in range(self.spoilings))


@dataclass(frozen=True)
class ScenePicture:
    """The input or the target of an item of the world as the bytes of a PNG file, drawn when it is read."""

    seed: int
    family: str
    size_px: int
    part: Literal["input", "target"] = "input"

    @property
    def name(self) -> str:
        return f"{self.part} of seed {self.seed}"

    def read(self) -> bytes:
        item = sample_item(self.seed, family=self.family, size=self.size_px)
        pixels = item.input if self.part == "input" else item.target
        return encode_image(Image.fromarray(pixels), f"{self.part}.png")


def world_case(item: Item) -> Case:
    """What a judge is told of an item of the world; `details` say how to draw it anew."""
    return Case(
        key=str(item.seed),
        prompt=item.prompt,
        image=ScenePicture(item.seed, item.family, item.size),
        category=item.family,
        reference=ScenePicture(item.seed, item.family, item.size, "target"),
        details={"seed": item.seed, "family": item.family, "size_px": item.size},
    )


def edited_picture(item: Item, kind: str) -> np.ndarray | None:
    """The picture of that kind, uint8 size size 3; None where the scene has no room for it or the truth is unclear.

    The exact score must agree: a true edit that it refuses, or a bad one that it passes (the copy, where nothing was to
    be changed), is no known case. Raises ValueError for an unknown kind.
    """
    drawn = {TRUE: lambda: item.target, COPY: lambda: item.input}.get(kind, partial(spoiled, item, kind))()
    if drawn is None or score(item, drawn).success is not (kind == TRUE):
        return None
    return drawn


def run_check(
    judge: Judge,
    check: JudgeCheck,
    folder: Path,
    *,
    workers: int = 1,
    retry_failed: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Have the judge see what `folder` lacks, and write the summary, which is returned.

    With `retry_failed` it sees those again that it refused or whose answers could not be read. `report(done, total)` is
    called after each picture. Raises OutputError when the folder holds another check or cannot be written, ValueError
    when no picture could be judged, and what the judge raises.
    """
    claim(folder / "run.json", check.identity(), "another check")
    ledger = Ledger(folder / "verdicts.jsonl")
    total = sum(len(check.kinds(seed)) for seed in _seeds(check))
    missing = {seed: _missing(check, ledger, seed, retry_failed) for seed in _seeds(check)}
    done = total - sum(map(len, missing.values()))
    for (item, kind), record in in_parallel(partial(_judge, judge), _pictures(check, missing), workers):
        ledger.append(_key(item.seed, kind), record)
        done += 1
        if report is not None:
            report(done, total)
    judgements, left_out = read_judgements(ledger, check)
    measured = summarise(judgements, threshold=check.threshold, scale=check.scale)
    summary = {"run": asdict(check), "left_out": left_out, **measured}
    write_json(folder / "summary.json", summary)
    return summary


def read_judgements(ledger: Ledger, check: JudgeCheck) -> tuple[list[Judgement], int]:
    """What was judged of this check, by seed and kind, and how many pictures had no clear truth."""
    found = [ledger.get(_key(seed, kind)) for seed in _seeds(check) for kind in check.kinds(seed)]
    records = [record for record in found if record is not None]
    known = [record for record in records if not record["left_out"]]
    names = ("seed", "family", "edit", "prompt", "kind", "scores", "reason", "problem", "refused")
    return [Judgement(**{name: record[name] for name in names}) for record in known], len(records) - len(known)


def _missing(check: JudgeCheck, ledger: Ledger, seed: int, retry_failed: bool) -> list[str]:
    records = {kind: ledger.get(_key(seed, kind)) for kind in check.kinds(seed)}
    return [kind for kind, found in records.items() if found is None or (retry_failed and found["problem"])]


def _pictures(check: JudgeCheck, missing: Mapping[int, Sequence[str]]) -> Iterator[tuple[Item, str]]:
    """Each item is drawn when its first picture is wanted."""
    for seed, kinds in missing.items():
        if kinds:
            item = sample_item(seed, family=check.family, size=check.size_px)
            yield from ((item, kind) for kind in kinds)


def _judge(judge: Judge, picture: tuple[Item, str]) -> dict[str, Any]:
    item, kind = picture
    pixels = edited_picture(item, kind)
    verdict = Verdict(scores={}) if pixels is None else judge.score(world_case(item), Image.fromarray(pixels))
    return {
        "seed": item.seed,
        "family": item.family,
        "edit": item.edit,
        "prompt": item.prompt,
        "kind": kind,
        "left_out": pixels is None,
        "scores": dict(verdict.scores),
        "reason": verdict.reason,
        "problem": verdict.problem,
        "refused": verdict.refused,
    }


def _seeds(check: JudgeCheck) -> range:
    return range(check.first_seed, check.first_seed + check.items)


def _key(seed: int, kind: str) -> str:
    return f"{seed}-{kind}"
