"""A batch of edits into a folder: grouped by size and settings, written one by one, and resumed where it stopped.

In the folder: `batch.json` says with what the edits are made, `results.jsonl` has one line an item, written when its
files are, and `NAME-key.png` (with `NAME-key.mp4` beside it where videos are asked for) are the results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chronoedit.data.manifest import BatchItem, Refusal
from chronoedit.editing.batch_parts import take_in
from chronoedit.editing.prepare import edit_size, fill_defaults
from chronoedit.editing.reason import plan_course
from chronoedit.errors import ChronoEditError, OutputError
from chronoedit.ledger import Ledger, claim, fingerprint, locked
from chronoedit.media import write_files
from chronoedit.model.settings import ModelSettings
from chronoedit.request import SIZE_MULTIPLE_PX

CLAIM_FILE, RESULTS_FILE = "batch.json", "results.jsonl"
TOKENS_AT_ONCE = 2048
"""Latent tokens of a batch, where its size is not given: beyond, a forward takes as long as its parts."""
MOST_AT_ONCE = 16
DONE, FAILED = "done", "failed"
_FRAMES_A_LATENT = 4

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Items that go through the model together, and the names of those whose results are wanted.

    The others were written before: they are done again beside them, so that a job that was stopped gives the same
    pixels as one that was not. `group` is the same for all batches of one size and of the same settings.
    """

    items: tuple[BatchItem, ...]
    wanted: frozenset[str]
    group: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item: its line of results.jsonl, and its files' bytes by name (none when it failed)."""

    name: str
    record: Record
    files: dict[str, bytes] = field(default_factory=dict)


EditAll = Callable[[Iterable[Batch]], Iterator[tuple[Batch, list[Outcome]]]]
"""Does batches in their order, here or wherever, and gives each with what became of its items."""


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """What to do and where: `made_with` is all that must agree between the runs that share the folder."""

    folder: Path
    items: tuple[BatchItem, ...]
    made_with: dict[str, Any]
    batch_size: int | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch size {self.batch_size} is below 1; give 1 or more")

    def open(self) -> Ledger:
        """Claim the folder, and read what is done. Raises OutputError when it belongs to another job.

        It does when it was claimed with other settings, when an item was recorded for another request, or when it was
        not claimed and a result would overwrite a file that is there; nor is a picture to edit ever overwritten.
        """
        names = [f"{item.name}{suffix}" for item in self.items for suffix in (".png", ".mp4")]
        inputs = {os.path.abspath(str(item.request.image)) for item in self.items}
        overwritten = next((name for name in names if os.path.abspath(self.folder / name) in inputs), None)
        if overwritten is not None:
            raise OutputError(
                f"{self.folder / overwritten} is one of the pictures to edit and would be overwritten; choose another "
                "--output"
            )
        _claim(self.folder, json.loads(json.dumps(self.made_with)), names)
        ledger = Ledger(self.folder / RESULTS_FILE)
        take_in(self.folder, ledger)
        for item in self.items:
            record = ledger.get(item.name)
            if record is not None and record.get("asked") != asked(item):
                raise OutputError(
                    f"{self.folder} has {item.name} already, of another request than {item.place} asks for; "
                    "give that row another key, or choose another --output"
                )
        return ledger

    @contextmanager
    def held(self) -> Iterator[Ledger]:
        """As `open`, and until the end no other process can hold the folder. Raises OutputError when one does."""
        path = self.folder / CLAIM_FILE
        if not path.exists():
            self.open()
        with locked(path) as is_ours:
            if not is_ours:
                raise OutputError(
                    f"another process is at work in {self.folder}; wait for it, or choose another --output"
                )
            yield self.open()

    def left(self, ledger: Ledger) -> list[BatchItem]:
        """The items that are to be done."""
        return [item for item in self.items if self._is_left(ledger.get(item.name))]

    def batches(self, ledger: Ledger, settings: ModelSettings) -> list[Batch]:
        """The batches in which there is something to do, those of one size and of the same settings in a row."""
        left = {item.name for item in self.left(ledger)}
        found = []
        for number, group in enumerate(grouped(self.items, settings)):
            size = self.batch_size or sensible_batch_size(group[0], settings)
            for at in range(0, len(group), size):
                items = tuple(group[at : at + size])
                wanted = frozenset(item.name for item in items if item.name in left)
                if wanted and all(name in ledger for name in wanted):  # they failed, whatever stood beside them
                    items = tuple(item for item in items if item.name in wanted)
                if wanted:
                    found.append(Batch(items=items, wanted=wanted, group=number))
        return found

    def run(
        self,
        ledger: Ledger,
        batches: Iterable[Batch],
        edit_all: EditAll,
        on_item: Callable[[Record], None],
        hashes: Record | None = None,
    ) -> None:
        """Do the batches; each item's files are on the disk before its line is, and then `on_item` hears of it.

        `hashes` are those of results that the ledger does not have (default: the ledger's own, see `hashes_of`).
        Raises OutputError for what cannot be written, ChronoEditError when the model is another than that of the
        results there are, and what `edit_all` raises.
        """
        known = hashes or hashes_of(ledger)
        for batch, outcomes in edit_all(batches):
            for outcome in outcomes:
                if outcome.name not in batch.wanted:
                    continue
                known = known or outcome.record.get("hashes")
                _refuse_other_model(self.folder, known, outcome.record)
                write_files({self.folder / name: data for name, data in outcome.files.items()})
                ledger.append(outcome.name, outcome.record)
                on_item({"key": outcome.name, **outcome.record})

    def _is_left(self, record: Record | None) -> bool:
        return record is None or (self.retry_failed and record["status"] == FAILED)


def asked(item: BatchItem) -> str:
    """What identifies an item's request: that nothing of it has changed since its line was written.

    The picture counts by its absolute path, so that a manifest may be named from any folder.
    """
    return fingerprint({**item.request.to_json(), "image": os.path.abspath(str(item.request.image))})


def sort_out(items: Sequence[BatchItem], settings: ModelSettings) -> tuple[tuple[BatchItem, ...], list[Refusal]]:
    """The items that this model can do, and those that it cannot, such as a picture too thin for its size."""
    possible, refused = [], []
    for item in items:
        try:
            _group_key(item, settings)
            possible.append(item)
        except ValueError as error:
            refused.append(Refusal(item.place, str(error)))
    return tuple(possible), refused


def sensible_batch_size(item: BatchItem, settings: ModelSettings) -> int:
    """How many edits like this one go together: up to `TOKENS_AT_ONCE` latent tokens, and `MOST_AT_ONCE` edits."""
    request = fill_defaults(item.request, settings)
    height, width = edit_size(request, item.photo_size, settings.target_area, SIZE_MULTIPLE_PX)
    frames = 1 + (plan_course(request, settings.reasoning_frames).num_frames - 1) // _FRAMES_A_LATENT
    tokens = frames * (height // SIZE_MULTIPLE_PX) * (width // SIZE_MULTIPLE_PX)
    return max(1, min(MOST_AT_ONCE, TOKENS_AT_ONCE // tokens))


def grouped(items: Sequence[BatchItem], settings: ModelSettings) -> list[list[BatchItem]]:
    """Items of one size and of the same settings together, in the order of the first of each."""
    groups: dict[Hashable, list[BatchItem]] = {}
    for item in items:
        groups.setdefault(_group_key(item, settings), []).append(item)
    return list(groups.values())


def _group_key(item: BatchItem, settings: ModelSettings) -> Hashable:
    """What must agree between edits of one batch; as `editing.batch.group_edits` says, from the request alone."""
    request = fill_defaults(item.request, settings)
    return (
        edit_size(request, item.photo_size, settings.target_area, SIZE_MULTIPLE_PX),
        plan_course(request, settings.reasoning_frames),
        request.guidance_scale,
        request.guidance_until,
        request.step_cache,
        request.flow_shift,
        request.solver,
        request.integer_timesteps,
        request.noise_device,
    )


def _claim(folder: Path, made_with: Record, names: Sequence[str]) -> None:
    """Write `batch.json`, or check that it says the same."""
    path = folder / CLAIM_FILE
    if not path.exists():
        there = next((name for name in (RESULTS_FILE, *names) if (folder / name).exists()), None)
        if there is not None:
            raise OutputError(f"{folder / there} is there already and not of this batch; choose another --output")
    claim(path, made_with, "a batch made otherwise")


def hashes_of(ledger: Ledger) -> Record | None:
    """Of the model and what else made the results there are; None before the first."""
    return next((record["hashes"] for record in ledger.records() if record.get("hashes")), None)


def _refuse_other_model(folder: Path, before: Record | None, record: Record) -> None:
    """Raise ChronoEditError when the results there were made by other weights under the same name."""
    if before is None or record.get("hashes") is None:
        return
    if any(before[name] != record["hashes"][name] for name in ("model", "loras")):
        raise ChronoEditError(
            f"the model or a LoRA has changed since the first results in {folder} were made; choose another --output"
        )
