"""A chain of edits, each starting from the last result ("open the jar", then "add seasoning"); saved, resumable.

A folder holds `step-01.png`, `step-02.png`, … (with `step-01.mp4` beside it where a step shows its trajectory) and
`chain.jsonl`, the record of the steps that are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import chronoedit
from chronoedit.editing.editor import Editor
from chronoedit.editing.prepare import pixels_sha256
from chronoedit.errors import ImageError
from chronoedit.ledger import Ledger, fingerprint
from chronoedit.media import check_writable, encode_image, encode_video, load_image, write_files
from chronoedit.request import EditRequest, EditResult

RECORD_FILE = "chain.jsonl"

Describe = Callable[[EditResult], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ChainStep:
    """A step that is done: its picture's `path`, the completed `request`, and the `result`, None where it was resumed.

    `index` counts from 0.
    """

    index: int
    path: Path
    request: EditRequest
    result: EditResult | None


def run_chain(
    editor: Editor,
    requests: Sequence[EditRequest],
    folder: str | Path,
    *,
    describe: Describe | None = None,
    on_step: Callable[[ChainStep], None] | None = None,
) -> list[ChainStep]:
    """Run edits one after the other into `folder`: the first from its own image, each other from the last result.

    A chain that was stopped goes on after its last whole step. A step is taken as done only when its input's pixels,
    its request, the model and the LoRAs hash to what is recorded, and its picture's pixels do too: whatever changed is
    done anew, with every later step whose input then differs. Every step starts from the saved PNG, so a resumed
    chain equals one that ran through. `describe` gives the metadata of each PNG, `on_step` hears of each step.

    Raises ValueError for no requests or for variants, OutputError when a step cannot be saved, else as `Editor.edit`.
    """
    check_chain(requests)
    folder = Path(folder)
    check_writable(folder / RECORD_FILE)
    ledger = Ledger(folder / RECORD_FILE)
    steps: list[ChainStep] = []
    for index, request in enumerate(requests):
        asked = request if not steps else replace(request, image=steps[-1].path)
        step = _step(editor, asked, folder / f"step-{index + 1:02d}.png", ledger, describe or describe_result)
        steps.append(replace(step, index=index))
        if on_step is not None:
            on_step(steps[-1])
    return steps


def check_chain(requests: Sequence[EditRequest]) -> None:
    """Raise ValueError when the requests are no chain: none at all, or one with several variants."""
    if not requests:
        raise ValueError("a chain needs at least one edit; give its prompts")
    for index, request in enumerate(requests, start=1):
        if request.num_variants != 1:
            raise ValueError(
                f"step {index} asks for {request.num_variants} variants, and the next could start from one only; "
                "use num_variants=1, or run chains with different seeds"
            )


def describe_result(result: EditResult) -> dict[str, Any]:
    """The metadata of a result's picture: version, completed request, hashes and timings."""
    return {
        "version": chronoedit.__version__,
        "request": result.request.to_json(),
        "hashes": result.hashes,
        "timings_s": result.timings_s,
    }


def _step(editor: Editor, request: EditRequest, path: Path, ledger: Ledger, describe: Describe) -> ChainStep:
    """One step, run or found done; its index is for the caller to fill in."""
    asked = _fingerprint(editor, request)
    record = ledger.get(path.stem)
    if record is not None and record.get("asked") == asked and _pixels_of(path) == record.get("pixels"):
        completed = replace(EditRequest.from_json(record["request"]), image=request.image, progress=request.progress)
        return ChainStep(index=0, path=path, request=completed, result=None)
    result = editor.edit(request)
    files = {path: encode_image(result.image, path, describe(result))}
    if result.trajectory is not None:
        video_path = path.with_suffix(".mp4")
        files[video_path] = encode_video(result.trajectory, video_path)
    write_files(files)
    done = {"asked": asked, "pixels": pixels_sha256(result.image), "request": result.request.to_json()}
    ledger.append(path.stem, {**done, "hashes": result.hashes, "timings_s": result.timings_s})
    return ChainStep(index=0, path=path, request=result.request, result=result)


def _fingerprint(editor: Editor, request: EditRequest) -> str:
    """What a step depends on. An open seed counts as open: the one that was drawn stays when the step is resumed."""
    asked = {name: value for name, value in request.to_json().items() if name != "image"}
    return fingerprint({"input": pixels_sha256(load_image(request.image)), "request": asked, **editor.hashes})


def _pixels_of(path: Path) -> str | None:
    """Hash of a saved step's pixels, None when there is no whole picture."""
    try:
        return pixels_sha256(load_image(path))
    except ImageError:
        return None
