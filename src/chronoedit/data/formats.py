"""The formats of training sets, read as they are: each lists its records, and none is unpacked or rewritten.

Pickles (`umt5` columns, `.pth` members) are never opened.
"""

from __future__ import annotations

import csv
import json
import logging
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chronoedit.data.records import FileBlob, ParquetBlob, Record, TarBlob, pyarrow_parquet
from chronoedit.errors import DataError
from chronoedit.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES

logger = logging.getLogger(__name__)

BEFORE = (
    "input_image", "edit_image", "kontext_images", "original_image", "source_image", "source_img", "src_img",
    "control_path", "control_path_0", "before", "input", "source", "original", "control", "src",
)  # fmt: skip
AFTER = (
    "edited_image", "output_image", "target_image", "target_img", "edited_img", "image_path", "image",
    "after", "target", "edited", "output", "edit_result",
)  # fmt: skip
VIDEO = ("video", "video_path", "mp4")
PROMPT = (
    "prompt", "caption", "edit_prompt", "instruction", "edit_instruction", "edited_prompt_list", "edit", "text", "txt",
)  # fmt: skip
"""What published sets call the parts of an example, the most telling name first."""

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class RecordFormat:
    """A format: the suffix of its index files (none: a folder), what it imitates, and its reader.

    The reader takes an index file, the folder that paths in it start from, and whether there must be captions. It
    reads as it is asked, and but for a folder's names it keeps nothing.
    """

    name: str
    suffix: str
    source: str
    read: Callable[[Path, Path, bool], Iterator[Record]]


@dataclass(frozen=True)
class RecordSet:
    """A training set: the name of its format, and its records in their order on disk."""

    format: str
    records: list[Record]


def open_records(path: str | Path, base: str | Path | None = None) -> RecordSet:
    """The records of a file or folder, in whichever of `RECORD_FORMATS` it is; nothing is decoded.

    Paths in a table start from its own folder, or from `base`.

    A folder is read by its `metadata.csv` or `metadata.jsonl`, else by all its `.jsonl`, `.parquet` or `.tar` files,
    else as pairs of pictures. A row that cannot be read becomes a record with a `problem`. Raises DataError when there
    is no set, a column is missing, or two rows have one key.
    """
    path = Path(path)
    chosen, files = _detect(path)
    records = list(_read_all(chosen, files, base, captions=True))
    if not records:
        raise DataError(f"{path} ({chosen.name}) has no examples in it")
    _refuse_repeated_keys(path, records)
    return RecordSet(chosen.name, records)


def iter_records(path: str | Path, base: str | Path | None = None, *, captions: bool = True) -> Iterator[Record]:
    """The records of `open_records` one by one, in the same order and in bounded memory (but for a folder's names).

    Keys may repeat: what has been read is not remembered. Without `captions` a set need not have any. Raises
    DataError when there is no set, before the first record.
    """
    chosen, files = _detect(Path(path))
    return _read_all(chosen, files, base, captions)


def _read_all(chosen: RecordFormat, files: Sequence[Path], base: str | Path | None, captions: bool) -> Iterator[Record]:
    for file in files:
        yield from chosen.read(file, Path(base) if base else file.parent, captions)


def _detect(path: Path) -> tuple[RecordFormat, list[Path]]:
    if not path.exists():
        raise DataError(f"there is no {path}; give a training set's folder, or its metadata.csv")
    by_suffix = {each.suffix: each for each in RECORD_FORMATS.values() if each.suffix}
    if path.is_file():
        if path.suffix.lower() not in by_suffix:
            raise DataError(f"{path} is no index of a training set; expected {', '.join(by_suffix)}, or a folder")
        return by_suffix[path.suffix.lower()], [path]
    for suffix in (".csv", ".jsonl"):
        if (path / f"metadata{suffix}").is_file():
            return by_suffix[suffix], [path / f"metadata{suffix}"]
    for suffix, found in by_suffix.items():
        files = sorted(path.glob(f"*{suffix}"))
        if files:
            return found, files
    return RECORD_FORMATS["folder"], [path]


def _refuse_repeated_keys(path: Path, records: Sequence[Record]) -> None:
    rows: dict[str, str] = {}
    for record in records:
        if record.key in rows:
            raise DataError(f"{path}: {rows[record.key]} and {record.row} have the same key {record.key!r}; rename one")
        rows[record.key] = record.row


def _first(fields: Fields, names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name) not in (None, "", [])), None)


def _column(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _text(value: Any) -> str:
    """A prompt; of several wordings the first."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else ""
    return "" if value is None else str(value)


def _file(folder: Path, value: Any) -> FileBlob | None:
    """A path as a table gives it: from the table's folder, or as it stands."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        value = value[0]
    path = folder / str(value)
    return FileBlob(path if path.exists() or not Path(str(value)).exists() else Path(str(value)))


def _table_record(fields: Fields, row: str, folder: Path, key: str) -> Record:
    return Record(
        row=row,
        key=str(fields.get("key") or key),
        prompt=_text(_first(fields, PROMPT)),
        before=_file(folder, _first(fields, BEFORE)),
        after=_file(folder, _first(fields, AFTER)),
        video=_file(folder, _first(fields, VIDEO)),
    )


def _require(path: Path, names: Sequence[str], captions: bool) -> None:
    """Raise DataError unless the columns name pictures (or a video) and, where there must be `captions`, words."""
    listed = ", ".join(names) or "none"
    if captions and _column(names, PROMPT) is None:
        raise DataError(f"{path} has no column of captions (such as prompt); its columns: {listed}")
    both = _column(names, BEFORE) is not None and _column(names, AFTER) is not None
    if _column(names, VIDEO) is None and not both:
        raise DataError(
            f"{path} names neither videos (video) nor pictures before and after (input_image and image); "
            f"its columns: {listed}"
        )


def _read_csv(path: Path, base: Path, captions: bool) -> Iterator[Record]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _csv_records(csv.DictReader(file), path, base, captions)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}); save it as UTF-8") from error


def _csv_records(reader: csv.DictReader[str], path: Path, base: Path, captions: bool) -> Iterator[Record]:
    names = [name for name in reader.fieldnames or [] if name]
    _require(path, names, captions)
    if "umt5" in names:
        logger.warning("%s: its umt5 files are pickles and are not opened; text is encoded anew", path)
    try:
        for fields in reader:
            yield _table_record(fields, f"{path.name}:{reader.line_num}", base, f"{path.stem}-{reader.line_num}")
    except csv.Error as error:
        raise DataError(f"{path.name}:{reader.line_num}: {error}; is it a table of comma separated values?") from error


def _read_jsonl(path: Path, base: Path, _captions: bool) -> Iterator[Record]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _jsonl_record(line, f"{path.name}:{number}", f"{path.stem}-{number}", base)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}); save it as UTF-8") from error


def _jsonl_record(line: str, row: str, key: str, base: Path) -> Record:
    try:
        fields = json.loads(line)
    except ValueError as error:
        return Record(row=row, key=key, problem=f"no JSON ({error}); give one object a line")
    if not isinstance(fields, dict):
        return Record(row=row, key=key, problem=f"{type(fields).__name__}; give one object a line")
    return _table_record(fields, row, base, key)


def _read_parquet(path: Path, _base: Path, captions: bool) -> Iterator[Record]:
    try:
        file = pyarrow_parquet().ParquetFile(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    names = file.schema_arrow.names
    _require(path, names, captions)
    before, after, prompt = (_column(names, wanted) for wanted in (BEFORE, AFTER, PROMPT))
    if before is None or after is None:
        raise DataError(f"{path}: parquet rows hold pictures before and after; its columns: {', '.join(names)}")
    for group in range(file.num_row_groups):
        for row, words in enumerate(_parquet_prompts(file, group, prompt)):
            yield Record(
                row=f"{path.name}:{group}.{row}",
                key=f"{path.stem}-{group}-{row}",
                prompt=_text(words),
                before=ParquetBlob(path, before, group, row),
                after=ParquetBlob(path, after, group, row),
            )


def _parquet_prompts(file: Any, group: int, prompt: str | None) -> list[Any]:
    """The captions of one group of rows, None where there is no column of them."""
    if prompt is None:
        return [None] * file.metadata.row_group(group).num_rows
    captions: list[Any] = file.read_row_group(group, columns=[prompt]).column(0).to_pylist()
    return captions


def _read_tar(path: Path, _base: Path, _captions: bool) -> Iterator[Record]:
    """Samples of a WebDataset shard: neighbours whose names are the same up to the first dot."""
    try:
        with tarfile.open(path, "r:") as archive:
            sample: dict[str, tarfile.TarInfo] = {}
            key = None
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or it remembers all that it has passed
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, part = name.partition(".")
                if key != f"{folder}/{stem}" and sample:
                    yield _tar_record(path, archive, sample)
                    sample = {}
                key = f"{folder}/{stem}"
                sample[part.lower()] = member
            if sample:
                yield _tar_record(path, archive, sample)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as an uncompressed tar ({error}); fetch it anew, or unpack it"
        ) from error


def _tar_record(path: Path, archive: tarfile.TarFile, sample: Mapping[str, tarfile.TarInfo]) -> Record:
    first = next(iter(sample.values())).name
    row, stem = f"{path.name}:{first}", first.partition(".")[0]
    fields: dict[str, Any] = {}
    for part, member in sample.items():
        bare, _, suffix = part.rpartition(".")
        if f".{suffix}" in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
            blob = TarBlob(path, member.name, member.offset_data, member.size)
            fields["video" if f".{suffix}" in VIDEO_SUFFIXES else bare] = blob
        elif suffix in ("txt", "caption", "json"):
            file = archive.extractfile(member)
            text = "" if file is None else file.read().decode("utf-8", errors="replace")
            try:
                fields |= _tar_words(text, suffix)
            except ValueError as error:
                return Record(row=row, key=f"{path.stem}/{stem}", problem=f"{member.name} is no JSON ({error})")
    return Record(
        row=row,
        key=f"{path.stem}/{stem}",
        prompt=_text(_first(fields, PROMPT)),
        before=_first(fields, BEFORE),
        after=_first(fields, AFTER),
        video=_first(fields, VIDEO),
    )


def _tar_words(text: str, suffix: str) -> dict[str, Any]:
    """Captions of a text or JSON member; raises ValueError for JSON that is damaged."""
    if suffix != "json":
        return {"txt": text.strip()}
    parsed = json.loads(text)
    return {name: parsed[name] for name in PROMPT if name in parsed} if isinstance(parsed, dict) else {}


def _read_folder(folder: Path, _base: Path, _captions: bool) -> Iterator[Record]:
    """Pairs by name (`cat_before.png`, `cat_after.png`, `cat.txt`) or by folder (`before/cat.png`, `after/cat.png`)."""
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    by_role: dict[str, dict[str, Path]] = {"before": {}, "after": {}}
    for path in pictures:
        key, role = _role(path.relative_to(folder))
        if role is None:
            continue
        if key in by_role[role]:
            raise DataError(f"{folder}: {by_role[role][key]} and {path} are both the picture {role} of {key}")
        by_role[role][key] = path
    keys = sorted({*by_role["before"], *by_role["after"]})
    if not keys:
        raise DataError(
            f"{folder} holds no training set: no metadata.csv, .jsonl, .parquet or .tar, and no pairs of pictures such "
            "as cat_before.png and cat_after.png, or before/cat.png and after/cat.png"
        )
    for key in keys:
        before, after = (by_role[role].get(key) for role in ("before", "after"))
        words = _caption(folder, key, [path for path in (after, before) if path is not None])
        blobs = [None if path is None else FileBlob(path) for path in (before, after)]
        yield Record(row=key, key=key, prompt=words, before=blobs[0], after=blobs[1])


def _role(path: Path) -> tuple[str, str | None]:
    """(key, "before" or "after") of a picture's path within the folder; None where its name does not say."""
    for role, names in (("before", BEFORE), ("after", AFTER)):
        for name in names:
            for mark in (f"_{name}", f"-{name}", f".{name}"):
                if path.stem.lower().endswith(mark):
                    return path.with_name(path.stem[: -len(mark)]).as_posix(), role
            if path.parent.name.lower() == name:
                return (path.parent.parent / path.stem).as_posix(), role
    return path.with_suffix("").as_posix(), None


def _caption(folder: Path, key: str, pictures: Sequence[Path]) -> str:
    """The words beside a pair: KEY.txt, or a text of the same name as one of its pictures."""
    places = [(folder / key).with_name(f"{Path(key).name}.txt"), *(path.with_suffix(".txt") for path in pictures)]
    found = next((place for place in places if place.is_file()), None)
    return "" if found is None else found.read_text(encoding="utf-8").strip()


RECORD_FORMATS: dict[str, RecordFormat] = {
    each.name: each
    for each in (
        RecordFormat("csv", ".csv", "the published metadata.csv (key,video,prompt[,umt5]) and DiffSynth's", _read_csv),
        RecordFormat(
            "jsonl", ".jsonl", "musubi-tuner's dataset files (image_path, control_path, caption)", _read_jsonl
        ),
        RecordFormat("parquet", ".parquet", "edit sets on the hub: original_image, edited_image, …", _read_parquet),
        RecordFormat("webdataset", ".tar", "WebDataset shards: 0001.input.jpg, 0001.target.jpg, 0001.txt", _read_tar),
        RecordFormat("folder", "", "pictures in a folder, with captions in .txt files", _read_folder),
    )
}
