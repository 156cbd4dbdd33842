"""The public files of benchmarks of edits, read as they are; every row that cannot be used is named.

A case's key is where the benchmark's own script looks for the edited picture, without its suffix.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from chronoedit.data.records import Blob, FileBlob, ParquetBlob, pyarrow_parquet
from chronoedit.errors import DataError
from chronoedit.evaluation.cases import Case

PBENCH_TABLE = "pbench_edit.csv"
PBENCH_CATEGORIES = ("human", "robot", "driving")
IMGEDIT_TYPES = (
    "add", "adjust", "alter", "extract", "replace", "remove", "background", "style", "compose", "action",
)  # fmt: skip
GEDIT_GROUPS = (
    "background_change", "color_alter", "material_alter", "motion_change", "ps_human", "style_change", "subject-add",
    "subject-remove", "subject-replace", "text_change", "tone_transfer",
)  # fmt: skip
RISE_CATEGORIES = ("temporal_reasoning", "causal_reasoning", "spatial_reasoning", "logical_reasoning")
KRIS_TYPES = {
    "attribute_perception": (
        "count_change", "color_change", "size_adjustment", "part_completion", "anomaly_correction",
    ),
    "spatial_perception": ("viewpoint_change", "position_movement"),
    "temporal_prediction": ("temporal_prediction",),
    "social_science": ("humanities", "practical_knowledge"),
    "natural_science": ("biology", "chemistry", "geography", "medicine", "mathematics", "physics"),
    "logical_reasoning": ("abstract_reasoning", "rule-based_reasoning"),
    "instruction_decomposition": ("multi-element_composition", "multi-instruction_execution"),
}  # fmt: skip
"""The categories of KRIS-Bench, by the kind of knowledge that they need."""
KRIS_CATEGORIES = tuple(category for categories in KRIS_TYPES.values() for category in categories)
SHOWN_PROBLEMS = 10

Fields = Mapping[str, Any]
Row = tuple[str, Callable[[], Case]]


def read_pbench_edit(path: Path) -> Iterator[Case]:
    """PBench-Edit from a table with the columns image, prompt, category (human, robot, driving) and, if wished, key.

    Its items are not published; this is the paper's description (arXiv 2510.04290) as a table. `path` is the csv or a
    folder with `pbench_edit.csv`, which `pbench_items` writes. Raises DataError.
    """
    table = _index(path, (PBENCH_TABLE,))
    reader = csv.DictReader(io.StringIO(_text(table), newline=""))
    names = reader.fieldnames or []
    missing = [name for name in ("image", "prompt", "category") if name not in names]
    if missing:
        raise DataError(f"{table} has no column {', '.join(missing)}; its columns: {', '.join(names) or 'none'}")
    return _cases(table, _pbench_rows(reader, table))


def _pbench_rows(reader: csv.DictReader[str], table: Path) -> Iterator[Row]:
    try:
        for fields in reader:
            yield f"row {reader.line_num}", partial(_pbench_case, fields, table.parent, reader.line_num)
    except csv.Error as error:
        raise DataError(
            f"{table}: after row {reader.line_num}: {error}; is it a table of comma separated values?"
        ) from error


def _pbench_case(fields: Fields, folder: Path, line: int) -> Case:
    return Case(
        key=_key(fields.get("key") or str(line)),
        prompt=_words(fields, "prompt"),
        image=_picture([folder], fields.get("image"), "image"),
        category=_one_of(fields.get("category"), PBENCH_CATEGORIES, "category"),
    )


def read_imgedit(path: Path) -> Iterator[Case]:
    """ImgEdit-Bench, basic: PKU-YuanGroup/ImgEdit, `Benchmark/Basic/basic_edit.json` (key → id, prompt, edit_type).

    `path` is that file or its folder (`singleturn.json` is the same table in the published archive). The pictures are
    looked for beside it, and in `original_images`, `singleturn` and `Benchmark/singleturn` there. Raises DataError.
    """
    index = _index(path, ("basic_edit.json", "singleturn.json"))
    folders = [index.parent / name for name in ("", "original_images", "singleturn", "Benchmark/singleturn")]
    items = _json(index, dict).items()
    return _cases(index, ((key, partial(_imgedit_case, key, fields, folders)) for key, fields in items))


def _imgedit_case(key: str, fields: Any, folders: Sequence[Path]) -> Case:
    fields = _fields(fields)
    return Case(
        key=_key(key),
        prompt=_words(fields, "prompt"),
        image=_picture(folders, fields.get("id"), "id"),
        category=_one_of(fields.get("edit_type"), IMGEDIT_TYPES, "edit_type"),
    )


def read_gedit(path: Path) -> Iterator[Case]:
    """GEdit-Bench: the parquet files of stepfun-ai/GEdit-Bench on the hub.

    Columns as in stepfun-ai/Step1X-Edit, `GEdit-Bench/generate_image_example.py`: task_type, key, instruction,
    instruction_language, input_image, Intersection_exist. `path` is a file, or a folder with files here or in `data`.
    Raises DataError.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    if not files:
        raise DataError(f"there is no parquet file in {path}; give GEdit-Bench's folder, or one of its files")
    return _cases(path, (row for file in files for row in _gedit_rows(file)))


GEDIT_COLUMNS = ("task_type", "key", "instruction", "instruction_language", "Intersection_exist")


def _gedit_rows(path: Path) -> Iterator[Row]:
    try:
        file = pyarrow_parquet().ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise DataError(f"{path} cannot be read: {error}") from error
    names = file.schema_arrow.names
    missing = [name for name in (*GEDIT_COLUMNS, "input_image") if name not in names]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; its columns: {', '.join(names)}")
    for group in range(file.num_row_groups):
        empty = _rows_without_picture(file, group, "input_image")
        for row, fields in enumerate(file.read_row_group(group, columns=list(GEDIT_COLUMNS)).to_pylist()):
            blob = None if row in empty else ParquetBlob(path, "input_image", group, row)
            yield f"{path.name}:{group}.{row}", partial(_gedit_case, fields, blob)


def _rows_without_picture(file: Any, group: int, column: str) -> set[int]:
    """Rows of a group whose picture is null; the pictures are read only where the file's own counts leave it open."""
    leaves = [file.metadata.row_group(group).column(index) for index in range(file.metadata.num_columns)]
    counts = [leaf.statistics for leaf in leaves if leaf.path_in_schema in (column, f"{column}.bytes")]
    if counts and all(count is not None and count.has_null_count and count.null_count == 0 for count in counts):
        return set()
    values = file.read_row_group(group, columns=[column]).column(0)
    if (index := values.type.get_field_index("bytes") if values.type.num_fields else -1) >= 0:
        values = values.combine_chunks().flatten()[index]
    return {row for row, valid in enumerate(values.is_valid().to_pylist()) if not valid}


def _gedit_case(fields: Fields, blob: Blob | None) -> Case:
    if blob is None:
        raise DataError("it has no picture (input_image)")
    group = _one_of(fields["task_type"], GEDIT_GROUPS, "task_type")
    language = _words(fields, "instruction_language")
    return Case(
        key=_key(f"fullset/{group}/{language}/{_words(fields, 'key')}"),
        prompt=_words(fields, "instruction"),
        image=blob,
        category=group,
        details={"language": language, "intersection": bool(fields["Intersection_exist"])},
    )


def read_rise(path: Path) -> Iterator[Case]:
    """RISEBench: PhoenixZ810/RISEBench, `datav2_total_w_subtask.json` (PhoenixZ/RISEBench on the hub) and `data.zip`.

    Fields as `gpt_eval.py` there reads them: index, category, subtask, instruction, image, reference, reference_txt,
    reference_img, reasoning_img, consistency_free. `path` is that file or its folder; the pictures are looked for
    beside it and in `data`, where the archive unpacks them. Raises DataError.
    """
    index = _index(path, ("datav2_total_w_subtask.json", "data/datav2_total_w_subtask.json"))
    items = _json(index, list)
    column = any(isinstance(fields, dict) and "consistency_free" in fields for fields in items)
    folders = [index.parent, index.parent / "data"]
    rows = (
        (_name(fields, number), partial(_rise_case, fields, folders, column)) for number, fields in enumerate(items, 1)
    )
    return _cases(index, rows)


def _rise_case(fields: Any, folders: Sequence[Path], column: bool) -> Case:
    fields = _fields(fields)
    category = _one_of(fields.get("category"), RISE_CATEGORIES, "category")
    truth = _given(fields, "reference_img")
    answer = _given(fields, "reference_txt") if category == "logical_reasoning" else _given(fields, "reference")
    if not truth and not answer:
        needed = "reference_txt" if category == "logical_reasoning" else "reference"
        raise DataError(f"it has neither a description ({needed}) nor a picture (reference_img) of the true result")
    free = bool(_given(fields, "consistency_free"))
    return Case(
        key=_key(f"images/{category}/{_words(fields, 'index')}"),
        prompt=_words(fields, "instruction"),
        image=_picture(folders, fields.get("image"), "image"),
        category=category,
        reference=_picture(folders, truth, "reference_img") if truth else None,
        details={
            "reference": answer or "",
            "subtask": _given(fields, "subtask") or "",
            "sees_input": bool(_given(fields, "reasoning_img")),
            "consistency_free": free,
            # In a table an absent field is not-a-number, which the published script takes for true.
            "consistency_unweighted": free or (column and "consistency_free" not in fields),
        },
    )


def read_kris(path: Path) -> Iterator[Case]:
    """KRIS-Bench: mercurystraw/Kris_Bench, `KRIS_Bench/CATEGORY/annotation.json` and the pictures beside it.

    Each is id → ori_img (a name or several), gt_img, ins_en, explain_en. `path` is the folder of the categories, the
    one above, or that of one category. Of several pictures the first is the case's image, and all are in
    `details["pictures"]`. Raises DataError.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder; give the one with KRIS-Bench's categories, such as KRIS_Bench")
    indexes = [found for root in (path, path / "KRIS_Bench") for found in sorted(root.glob("*/annotation.json"))]
    if (path / "annotation.json").is_file():
        indexes = [path / "annotation.json"]
    if not indexes:
        raise DataError(f"there is no CATEGORY/annotation.json in {path}; give the folder KRIS_Bench of KRIS-Bench")
    return _cases(path, (row for index in indexes for row in _kris_rows(index)))


def _kris_rows(index: Path) -> Iterator[Row]:
    category = index.resolve().parent.name
    for key, fields in _json(index, dict).items():
        yield f"{category}/{key}", partial(_kris_case, key, fields, category, index.parent)


def _kris_case(key: str, fields: Any, category: str, folder: Path) -> Case:
    fields = _fields(fields)
    _one_of(category, KRIS_CATEGORIES, "category")
    names = fields.get("ori_img")
    names = names if isinstance(names, list) and names else [names]
    pictures = tuple(_picture([folder], name, "ori_img") for name in names)
    truth = _given(fields, "gt_img")
    return Case(
        key=_key(f"{category}/{key}"),
        prompt=_words(fields, "ins_en"),
        image=pictures[0],
        category=category,
        reference=_picture([folder], truth, "gt_img") if truth else None,
        details={
            "explanation": _given(fields, "explain_en") or "",
            "pictures": pictures,
            **(_frame_numbers(names) if category == "temporal_prediction" else {}),
        },
    )


def _frame_numbers(names: Sequence[Any]) -> dict[str, Any]:
    """Which of four frames are given, by names such as 7-2.jpg, and which one is asked for."""
    found = [re.search(r"-(\d+)\.\w+$", str(name)) for name in names]
    frames = tuple(int(match[1]) for match in found if match)
    missing = sorted({1, 2, 3, 4} - set(frames))
    if len(frames) != len(names) or len(missing) != 1:
        raise DataError(f"its frames {', '.join(map(str, names))} are not three of four, such as 7-1.jpg to 7-4.jpg")
    return {"frames": frames, "frame": missing[0]}


def _cases(path: Path, rows: Iterable[Row]) -> Iterator[Case]:
    """All cases, when every row gives one and no key comes twice. Raises DataError that names the rows at fault."""
    cases: dict[str, Case] = {}
    problems = []
    for row, make in rows:
        try:
            case = make()
        except DataError as error:
            problems.append(f"{row}: {error}")
            continue
        if case.key in cases:
            problems.append(f"{row}: the key {case.key} is there already")
        cases[case.key] = case
    if problems:
        listed = "; ".join(problems[:SHOWN_PROBLEMS]) + "; …" * (len(problems) > SHOWN_PROBLEMS)
        raise DataError(f"{path}: {len(problems)} rows cannot be used; mend them or take them out: {listed}")
    if not cases:
        raise DataError(f"{path} has no items in it")
    return iter(cases.values())


def _index(path: Path, names: Sequence[str]) -> Path:
    if path.is_file():
        return path
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise DataError(f"there is no {' or '.join(names)} in {path}; give that file, or its folder")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from error


def _json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(_text(path), object_pairs_hook=_each_key_once)
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); fetch it anew") from error
    if not isinstance(value, kind):
        expected = "an object, from keys to items" if kind is dict else "a list of items"
        raise DataError(f"{path} is not {expected}, but {type(value).__name__}")
    return value


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"of the keys {', '.join(key for key, _ in pairs[:5])}, … one is there twice")
    return found


def _fields(value: Any) -> Fields:
    if not isinstance(value, dict):
        raise DataError(f"it is {type(value).__name__} and not an object with fields")
    return value


def _name(fields: Any, number: int) -> str:
    index = fields.get("index") if isinstance(fields, dict) else None
    return f"item {number}" + (f" ({index})" if index else "")


def _given(fields: Fields, name: str) -> Any:
    """A field's value; None where it is absent, null, empty or not-a-number."""
    value = fields.get(name)
    return None if value is None or value == "" or value != value else value


def _words(fields: Fields, name: str) -> str:
    value = fields.get(name)
    words = "" if value is None else str(value).strip()
    if not words:
        raise DataError(f"its {name} is empty")
    return words


def _one_of(value: Any, choices: Sequence[str], what: str) -> str:
    word = "" if value is None else str(value).strip()
    if word not in choices:
        raise DataError(f"its {what} is {word!r}; expected one of {', '.join(choices)}")
    return word


def _picture(folders: Sequence[Path], value: Any, what: str) -> FileBlob:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"it names no picture ({what})")
    for folder in folders:
        if (folder / value.strip()).is_file():
            return FileBlob(folder / value.strip())
    raise DataError(f"its picture {value} is not in {' or '.join(map(str, folders))}")


def _key(key: str) -> str:
    """A key that can be a file's name or path within a folder."""
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or "\\" in key or ".." in parts:
        raise DataError(f"its key {key!r} leads out of a folder of results; use letters, digits, - and _")
    return key
