"""What a batch is asked to do: a manifest (CSV or JSON lines), or every picture of a folder with every prompt and seed.

Every row becomes a `BatchItem` or a `Refusal`; of pictures only the headers are read.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from chronoedit.errors import ChronoEditError, DataError, ImageError
from chronoedit.media import IMAGE_SUFFIXES, MAX_ASPECT_RATIO, MIN_SIDE_PX
from chronoedit.request import EditRequest, with_preset

MANIFEST_SUFFIXES = (".csv", ".jsonl")
PICTURE_SUFFIXES = (*IMAGE_SUFFIXES, ".tif", ".tiff", ".bmp", ".gif")
PROMPT_FILE_SUFFIX = ".txt"
SET_BY_THE_JOB = {
    "num_variants": "give a row for each variant, with its own seed",
    "return_trajectory": "ask for videos of the whole batch",
    "return_latents": "they are not written to files",
    "progress": "it is no value",
}
"""Fields of a request that a row cannot set, and what to do instead."""
COLUMNS = ("key", *(f.name for f in fields(EditRequest) if f.name not in SET_BY_THE_JOB))
MAX_NAME_BYTES = 200
_TYPES = {f.name: str(f.type) for f in fields(EditRequest)}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_EXIF_ORIENTATION = 0x0112
_LYING_DOWN = (5, 6, 7, 8)
_SEEDS = 2**31


@dataclass(frozen=True, kw_only=True)
class BatchItem:
    """One edit of a batch: its results are called `name`, and `place` is where it was asked for ("row 3 (line 4)").

    `photo_size` is (width, height) in px of the picture as it is shown.
    """

    name: str
    place: str
    request: EditRequest
    photo_size: tuple[int, int]


@dataclass(frozen=True)
class Refusal:
    """A row that cannot be done, and why."""

    place: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All rows, in order: those that can be done, and those that cannot."""

    items: tuple[BatchItem, ...]
    refused: tuple[Refusal, ...]


@dataclass(frozen=True, kw_only=True)
class RowDefaults:
    """What a row means that leaves cells empty: `values` by a request's field, then what the preset fills in.

    Raises ValueError for what no row can set.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.values if name not in COLUMNS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no column of a manifest; choose from {', '.join(COLUMNS)}")

    def request(self, row: Mapping[str, Any]) -> EditRequest:
        """The request of a row, whose own values count first. Raises ValueError."""
        values = {**self.values, **row}
        without_reasoning = row.get("reasoning") is False
        if without_reasoning:
            if row.get("num_reasoning_steps"):
                steps = row["num_reasoning_steps"]
                raise ValueError(f"reasoning is false and num_reasoning_steps {steps}; leave one cell empty")
            values.pop("num_reasoning_steps", None)
        request = EditRequest(**values)
        if self.preset is None:
            return request
        request = with_preset(request, self.preset)
        return replace(request, reasoning=False, num_reasoning_steps=None) if without_reasoning else request


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A row as it was found: the values of its cells that are not empty, or what is wrong with it."""

    place: str
    key: str
    values: Mapping[str, Any]
    problem: str | None = None


def read_manifest(path: Path, defaults: RowDefaults) -> Manifest:
    """The rows of a manifest; paths of pictures start at its folder.

    Raises DataError for a file that cannot be read, is neither .csv nor .jsonl, has no rows, or has a column that is
    unknown, missing or given twice.
    """
    readers: dict[str, Callable[[Path], Iterator[_Row]]] = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} is no manifest; give a file that ends in {' or '.join(MANIFEST_SUFFIXES)}")
    try:
        rows = list(readers[path.suffix.lower()](path))
    except OSError as error:
        raise DataError(f"the manifest {path} cannot be read: {error.strerror or error}; check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path} is no CSV table: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows; give one for each edit (columns: image, prompt)")
    return _resolve(rows, path.parent, defaults)


def every_combination(folder: Path, prompts: Sequence[str], seeds: Sequence[int], defaults: RowDefaults) -> Manifest:
    """Each picture in a folder with each prompt and each seed (none: one made from the result's name).

    Keys are p1-s7, or p1 without seeds. Raises DataError for a folder without pictures, or no prompts.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; give one with pictures")
    pictures = [path for path in sorted(folder.iterdir()) if _is_picture(path)]
    if not pictures:
        raise DataError(f"there are no pictures in {folder}; they end in {', '.join(PICTURE_SUFFIXES)}")
    if not prompts:
        raise DataError(f"there are no prompts; give texts, or a {PROMPT_FILE_SUFFIX} file with one a line")
    rows = []
    for picture in pictures:
        for number, prompt in enumerate(prompts, start=1):
            for seed in seeds or (None,):
                key = f"p{number}" if seed is None else f"p{number}-s{seed}"
                values = {"image": picture.name, "prompt": prompt, **({} if seed is None else {"seed": seed})}
                rows.append(_Row(place=f"{picture.name}, {key}", key=key, values=values))
    return _resolve(rows, folder, defaults)


def read_prompts(given: Sequence[str]) -> list[str]:
    """The prompts of a command line: each is a text, or the name of a .txt file with one a line.

    Raises DataError for such a file that cannot be read.
    """
    prompts: list[str] = []
    for text in given:
        if not text.lower().endswith(PROMPT_FILE_SUFFIX):
            prompts.append(text)
            continue
        try:
            lines = Path(text).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the prompts in {text} cannot be read ({error}); give a text file in UTF-8") from error
        prompts += [line.strip() for line in lines if line.strip()]
    return prompts


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) in px as the picture is shown, from its header alone.

    Raises ImageError for what `media.load_image` would refuse by then.
    """
    if path.is_dir():
        raise ImageError(f"{path} is a folder; give the path of one picture in it")
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Asked for its EXIF, a PNG that has none before its pixels would decode them all.
            exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
            turned = exif.get(_EXIF_ORIENTATION) in _LYING_DOWN
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"there is no file {path}; check the path") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not a picture that can be read; give a PNG, JPEG, WebP, TIFF or BMP") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has too many pixels to be decoded safely; scale it down first ({error})") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path} cannot be read ({error}); check its permissions, or save it again") from error
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(f"{path} is {width}x{height} px; give one of at least {MIN_SIDE_PX} px a side")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(f"{path} is {width}x{height} px, longer than {MAX_ASPECT_RATIO}:1; crop it")
    return (height, width) if turned else (width, height)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _csv_rows(path: Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        _check_columns(path, reader.fieldnames or ())
        for number, cells in enumerate(reader, start=1):
            place = f"row {number} (line {reader.line_num})"
            if None in cells:
                problem = f"it has more cells than there are columns ({cells[None]}); quote a text with commas"
                yield _Row(place=place, key=_key(number), values={}, problem=problem)
            else:
                yield _parsed(cells, place, number)


def _jsonl_rows(path: Path) -> Iterator[_Row]:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    numbered = [(line_number, line) for line_number, line in enumerate(lines, start=1) if line.strip()]
    for number, (line_number, line) in enumerate(numbered, start=1):
        place = f"row {number} (line {line_number})"
        try:
            cells = json.loads(line)
        except ValueError as error:
            yield _Row(place=place, key=_key(number), values={}, problem=f"it is no JSON ({error})")
            continue
        yield _json_row(cells, place, number)


def _json_row(cells: object, place: str, number: int) -> _Row:
    if not isinstance(cells, dict):
        problem = f"it is a {type(cells).__name__}; expected an object with image and prompt"
        return _Row(place=place, key=_key(number), values={}, problem=problem)
    unknown = next((name for name in cells if name not in COLUMNS), None)
    if unknown is not None:
        return _Row(place=place, key=_key(number), values={}, problem=_unknown_column(unknown))
    return _parsed(cells, place, number)


def _check_columns(path: Path, names: Sequence[str]) -> None:
    for name in names:
        if name not in COLUMNS:
            raise DataError(f"{path}: {_unknown_column(name)}")
        if list(names).count(name) > 1:
            raise DataError(f"{path}: there are two columns {name!r}; leave one out")
    missing = [name for name in ("image", "prompt") if name not in names]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}, only {', '.join(names) or 'an empty line'}; add it")


def _unknown_column(name: str) -> str:
    if name in SET_BY_THE_JOB:
        return f"a row cannot set {name!r}: {SET_BY_THE_JOB[name]}"
    return f"there is no column {name!r}; choose from {', '.join(COLUMNS)}"


def _parsed(cells: Mapping[str, Any], place: str, number: int) -> _Row:
    """The row of these cells: empty ones left out, texts read as what their column holds."""
    given = {name: value for name, value in cells.items() if value is not None and value != ""}
    key = str(given.pop("key", _key(number)))
    try:
        return _Row(place=place, key=key, values={name: _value(name, value) for name, value in given.items()})
    except ValueError as error:
        return _Row(place=place, key=key, values={}, problem=str(error))


def _value(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    kind = _TYPES[name].removesuffix(" | None")
    try:
        if kind == "bool":
            return _TRUTH[value.strip().lower()]
        return {"int": int, "float": float}.get(kind, str)(value)
    except (ValueError, KeyError) as error:
        wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}[kind]
        raise ValueError(f"{name} is {value!r}; give {wanted}") from error


def _key(number: int) -> str:
    return f"{number:05d}"


def _resolve(rows: Sequence[_Row], folder: Path, defaults: RowDefaults) -> Manifest:
    """Rows as items, each with its picture's size, or refused. A picture's header is read once."""
    items: dict[str, BatchItem] = {}
    refused: list[Refusal] = []
    sizes: dict[Path, tuple[int, int] | ImageError] = {}
    for row in rows:
        try:
            item = _item(row, folder, defaults, sizes)
            same = items.setdefault(item.name.lower(), item)  # some file systems take A.png and a.png for one
            if same is not item:
                raise ValueError(f"its result would be called {item.name!r}, as that of {same.place}; give another key")
        except (ValueError, ChronoEditError) as error:
            refused.append(Refusal(row.place, str(error)))
    return Manifest(items=tuple(items.values()), refused=tuple(refused))


def _item(row: _Row, folder: Path, defaults: RowDefaults, sizes: dict[Path, tuple[int, int] | ImageError]) -> BatchItem:
    """One row as an item. Raises ValueError and ImageError."""
    if row.problem is not None:
        raise ValueError(row.problem)
    for name in ("image", "prompt"):
        if not isinstance(row.values.get(name), str):
            raise ValueError(f"it has no {name}; fill in that cell")
    path = folder / row.values["image"]
    name = _checked_name(f"{path.stem}-{row.key}")
    request = defaults.request({**row.values, "image": str(path)})
    if "solver" in row.values:
        from chronoedit.sampling.solvers import solver_named  # imports torch

        solver_named(request.solver)
    if path not in sizes:
        sizes[path] = _size_or_error(path)
    size = sizes[path]
    if isinstance(size, ImageError):
        raise size
    if request.seed is None:
        request = replace(request, seed=seed_of(name))
    return BatchItem(name=name, place=row.place, request=request, photo_size=size)


def seed_of(name: str) -> int:
    """The seed of an item that names none: made from its name, so that the same batch gives the same pictures."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % _SEEDS


def _size_or_error(path: Path) -> tuple[int, int] | ImageError:
    try:
        return picture_size(path)
    except ImageError as error:
        return error


def _checked_name(name: str) -> str:
    """The name, when it can be a file's everywhere. Raises ValueError."""
    wrong = sorted({letter for letter in name if letter in '/\\:*?"<>|' or not letter.isprintable()})
    if wrong:
        raise ValueError(f"its result would be called {name!r}, which has {wrong[0]!r} in it; give another key")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"its result's name would be longer than {MAX_NAME_BYTES} bytes; give a shorter key")
    return name
