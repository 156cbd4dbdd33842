"""Two editors' pictures of the same items, for people to vote on: from runs, or folders of equally named pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chronoedit.data.records import Blob, FileBlob
from chronoedit.errors import DataError
from chronoedit.media import IMAGE_SUFFIXES

from .bench_run import EDITOR, edit_key, read_edits
from .judge_check import ScenePicture
from .run import image_path, read_records

SHOWN_NAMES = 3
WORLD_ROW = "model"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One editor's picture of an item, with what the item asks for."""

    prompt: str
    input: Blob
    edited: Path


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One item with the pictures of both."""

    key: str
    prompt: str
    input: Blob
    a: Path
    b: Path


@dataclass(frozen=True, kw_only=True)
class Contest:
    """All items that both have, by key; `left_out` is how many only one has."""

    pairs: Mapping[str, Pair]
    left_out: int


def read_contest(
    a: Path, b: Path, *, inputs: Path | None = None, row_a: str | None = None, row_b: str | None = None
) -> Contest:
    """The items that folders `a` and `b` have in common.

    Each was written by `eval world` or `eval bench`, of which `row_a` and `row_b` choose a row, the editor's own if
    None; or, with `inputs`, all three hold pictures of the same names, and an input's prompt stands in a .txt file
    beside it. Raises DataError for a folder that is none of this, or when nothing is in common, OutputError for a
    damaged run, ValueError for a row where folders of pictures have none.
    """
    if inputs is not None and (row_a or row_b):
        raise ValueError("folders of pictures have no rows; leave out the rows, or --inputs")
    if inputs is not None:
        of_a, of_b = (_pictures_entries(folder, inputs) for folder in (a, b))
    else:
        of_a, of_b = read_run(a, row_a), read_run(b, row_b)
    common = [key for key in of_a if key in of_b]
    if not common:
        raise DataError(f"{a} and {b} have no item in common: {_some(of_a)} in one, {_some(of_b)} in the other")
    different = [key for key in common if of_a[key].prompt != of_b[key].prompt]
    if different:
        raise DataError(f"{a} and {b} ask for other things at item {different[0]}; give two runs of the same items")
    pairs = {
        key: Pair(key=key, prompt=of_a[key].prompt, input=of_a[key].input, a=of_a[key].edited, b=of_b[key].edited)
        for key in common
    }
    return Contest(pairs=pairs, left_out=len(of_a) + len(of_b) - 2 * len(common))


def read_run(folder: Path, row: str | None = None) -> dict[str, Entry]:
    """What a run edited, by item. Raises DataError for a folder without a run, or a run without that row."""
    for is_one, read in RUNS:
        if is_one(folder):
            entries = read(folder, row)
            if not entries:
                of_row = "" if row is None else f" of the row {row!r}"
                raise DataError(f"{folder} has no picture{of_row}; choose another row, or run it to its end")
            return entries
    raise DataError(
        f"{folder} holds no run; give a folder that `chronoedit eval world` or `eval bench` wrote, or --inputs with "
        "the pictures that both edited"
    )


def _some(entries: Mapping[str, Entry]) -> str:
    names = list(entries)
    return ", ".join(names[:SHOWN_NAMES] + ["…"] * (len(names) > SHOWN_NAMES)) or "nothing"


def _run_file(folder: Path) -> Mapping[str, Any]:
    """What `run.json` says; {} for a folder without one."""
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return run if isinstance(run, dict) else {}


def _is_world_run(folder: Path) -> bool:
    return {"first_seed", "size_px"} <= _run_file(folder).keys() and (folder / "items.jsonl").is_file()


def _world_entries(folder: Path, row: str | None) -> dict[str, Entry]:
    size_px = _run_file(folder)["size_px"]
    entries = {}
    for record in read_records(folder):
        edited = image_path(folder, record["seed"], row or WORLD_ROW)
        if edited.is_file():
            scene = ScenePicture(record["seed"], record["family"], size_px)
            entries[str(record["seed"])] = Entry(prompt=record["prompt"], input=scene, edited=edited)
    return entries


def _is_bench_run(folder: Path) -> bool:
    return "bench" in _run_file(folder)


def _bench_entries(folder: Path, row: str | None) -> dict[str, Entry]:
    """The first repeat of each case; cases whose edit failed are left out."""
    edits = read_edits(folder)
    entries = {}
    for case in dict.fromkeys(edit.case for edit in edits.values()):
        edit = edits.get(edit_key(case, row or EDITOR, 0))
        if edit is not None and edit.image is not None and edit.input is not None:
            source = FileBlob(folder / edit.input)
            entries[case] = Entry(prompt=edit.prompt, input=source, edited=folder / edit.image)
    return entries


def _pictures_entries(folder: Path, inputs: Path) -> dict[str, Entry]:
    edited, before = _pictures(folder), _pictures(inputs)
    return {
        name: Entry(prompt=_caption(before[name]), input=FileBlob(before[name]), edited=path)
        for name, path in edited.items()
        if name in before
    }


def _pictures(folder: Path) -> dict[str, Path]:
    """The folder's pictures by name without suffix, sorted."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; check the path")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    named: dict[str, Path] = {}
    for path in paths:
        if path.stem in named:
            raise DataError(f"{named[path.stem]} and {path.name} have one name; keep one of them")
        named[path.stem] = path
    return named


def _caption(picture: Path) -> str:
    path = picture.with_suffix(".txt")
    try:
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error


RUNS: tuple[tuple[Callable[[Path], bool], Callable[[Path, str | None], dict[str, Entry]]], ...] = (
    (_is_world_run, _world_entries),
    (_is_bench_run, _bench_entries),
)
"""How a folder is known to hold a run of some kind, and how that is read."""
