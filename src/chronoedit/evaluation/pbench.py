"""Items of PBench-Edit from the public PBench: the first frame of each clip, and what is to become of it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image

from chronoedit.data.records import pyarrow_parquet
from chronoedit.errors import DataError, ImageError, OutputError, VlmRefusal
from chronoedit.evaluation.bench_formats import PBENCH_TABLE
from chronoedit.media import encode_image, load_image, write_files
from chronoedit.vlm.asking import Question, VisionModel
from chronoedit.vlm.checks import is_english
from chronoedit.vlm.concurrency import in_parallel

DOMAINS = {"human": "human", "robot": "robot", "av": "driving"}
"""Domains of PBench, which its ids begin with, and their categories in PBench-Edit. The others have none."""
CAPTION = ("text_prompt", "prompt", "caption")
PICTURE = ("condition_image", "image")
MAX_WORDS = 60
ROWS_AT_ONCE = 16

REQUEST = f"""You write requests for a picture editor. You see the first frame of a clip, and read what happens in the
clip. Write the request that leads from this frame to the last frame of the clip: one or two English sentences of at
most {MAX_WORDS} words, spoken to the editor ("Make …", "Have …", "Move …").

Say who or what changes, told apart by look and place, and the state in which the action ends. Ask for one action only,
the main one, and for nothing that is there already. Leave out the camera, the mood, the scenery and everything that
stays. Answer with the request alone."""


@dataclass(frozen=True, kw_only=True)
class PbenchItems:
    """What was made of a parquet file: the table, how many items are in it, and the rows that are not.

    `other_domains` counts the rows of domains that PBench-Edit has not; `failed` says of the others why.
    """

    table: Path
    items: int
    other_domains: int
    failed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Clip:
    row: str
    key: str
    category: str
    caption: str
    picture: Any  # bytes, or a struct that holds them


@dataclass(frozen=True, kw_only=True)
class _Item:
    clip: _Clip
    prompt: str = ""
    image: bytes = b""
    problem: str | None = None


def pbench_items(parquet: Path, output: Path, *, model: VisionModel | None = None, workers: int = 4) -> PbenchItems:
    """Write `pbench_edit.csv` and `images/KEY.png` below `output`, of the human, robot and driving rows of PBench.

    `parquet` is nvidia/PBench from the hub, a file or its folder: id (`robot_…`, `human_…`, `av_…`), text_prompt,
    condition_image. Without a model the caption of the clip is the prompt; with one, the model makes a request of it,
    `workers` at a time, and a row for which it does not is left out. Rows are read as they are needed, the table is
    written last. Raises DataError for a file that is not PBench's, OutputError when there is a table already.
    """
    table = output / PBENCH_TABLE
    if table.exists():
        raise OutputError(f"{table} is there already; take another folder, or move it away")
    files = [parquet] if parquet.is_file() else sorted(parquet.rglob("*.parquet"))
    if not files:
        raise DataError(f"there is no parquet file in {parquet}; give that of nvidia/PBench from the hub")
    clips = (clip for file in files for clip in _clips(file))
    rows, failed, others = [], [], 0
    seen: set[str] = set()
    for clip, item in in_parallel(partial(_item, model), clips, workers):
        problem = "its id is there already" if clip.key and clip.key in seen else item.problem
        seen.add(clip.key)
        if problem is not None:
            failed.append(f"{clip.row} ({clip.key}): {problem}")
        elif not clip.category:
            others += 1
        else:
            write_files({output / "images" / f"{clip.key}.png": item.image})
            rows.append((f"images/{clip.key}.png", item.prompt, clip.category, clip.key))
    write_files({table: _csv(rows)})
    return PbenchItems(table=table, items=len(rows), other_domains=others, failed=tuple(failed))


def request_question(caption: str, frame: PIL.Image.Image) -> Question:
    """The question that turns what happens in a clip into a request for an edit of its first frame."""
    return Question(
        instructions=REQUEST, text=f"What happens in the clip: «{caption}»", images=(frame,), max_tokens=256
    )


def request_problem(text: str) -> str | None:
    """What is wrong with such a request, or None."""
    words = text.split()
    if not words or len(words) > MAX_WORDS:
        return f"It has {len(words)} words, and must have 1 to {MAX_WORDS}."
    if "\n" in text.strip():
        return "It must be one paragraph."
    return None if is_english(text) else "It must be in English."


def _clips(path: Path) -> Iterator[_Clip]:
    try:
        file = pyarrow_parquet().ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise DataError(f"{path} cannot be read: {error}") from error
    names = file.schema_arrow.names
    caption, picture = (next((name for name in wanted if name in names), None) for wanted in (CAPTION, PICTURE))
    if caption is None or picture is None or "id" not in names:
        listed = ", ".join(names)
        raise DataError(
            f"{path} has no column id, text_prompt or condition_image, as PBench has; its columns: {listed}"
        )
    number = 0
    for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=["id", caption, picture]):
        for fields in batch.to_pylist():
            number += 1
            yield _clip(f"{path.name}:{number}", fields["id"], fields[caption], fields[picture])


def _clip(row: str, key: Any, caption: Any, picture: Any) -> _Clip:
    name = str(key or "").strip()
    domain = re.split(r"[_\-/]", name)[0].lower()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".")
    category = DOMAINS.get(domain, "")
    return _Clip(row=row, key=safe, category=category, caption=str(caption or "").strip(), picture=picture)


def _item(model: VisionModel | None, clip: _Clip) -> _Item:
    if not clip.category:
        return _Item(clip=clip, problem=None if clip.key else "it has no id")
    data = clip.picture.get("bytes") if isinstance(clip.picture, dict) else clip.picture
    if not isinstance(data, bytes):
        return _Item(clip=clip, problem="it has no picture")
    if not clip.caption:
        return _Item(clip=clip, problem="its caption is empty")
    try:
        frame = load_image(data)
    except ImageError as error:
        return _Item(clip=clip, problem=str(error))
    prompt, problem = _request(model, clip.caption, frame)
    return _Item(clip=clip, prompt=prompt, image=encode_image(frame, f"{clip.key}.png"), problem=problem)


def _request(model: VisionModel | None, caption: str, frame: PIL.Image.Image) -> tuple[str, str | None]:
    if model is None:
        return caption, None
    try:
        answer = model.ask(request_question(caption, frame), request_problem)
    except VlmRefusal as refusal:
        return "", str(refusal)
    return answer.text, None if answer.problem is None else f"no request was made of its caption: {answer.problem}"


def _csv(rows: Sequence[tuple[str, str, str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("image", "prompt", "category", "key"))
    writer.writerows(rows)
    return text.getvalue().encode()
