"""The demo: edit pictures of this folder with the embedded model, with reasoning; PNG, mp4 and a sheet of each course.

Run by `make demo` (one edit) and `make figures` (all of them, for the README's picture).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import tyro

import chronoedit
from chronoedit.media import contact_sheet, load_image, save_image, save_video

HERE = Path(__file__).parent
# picture, prompt, seed; the first is the demo
EDITS = (
    ("table.png", "move the yellow ball onto the blue cube", 1),
    ("falling.png", "cut the rope that holds the blue cone", 1),
    ("objects.png", "make the purple ball green", 1),
)
MOMENTS = (0.2, 0.4, 0.6, 0.8)
SCALE = 2  # the sheet shows the small pictures twice their size


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Where to write, and how many of the example edits to run."""

    output_dir: Path = Path("out/demo")
    edits: int = 1


def sheet_row(picture: PIL.Image.Image, result: chronoedit.EditResult) -> list[PIL.Image.Image]:
    """Before, four moments of the trajectory, after."""
    assert result.trajectory is not None
    last = len(result.trajectory) - 1
    moments = [PIL.Image.fromarray(result.trajectory[round(t * last)]) for t in MOMENTS]
    height, width = np.asarray(result.image).shape[:2]
    row = [picture.resize((width, height)), *moments, result.image]
    return [image.resize((width * SCALE, height * SCALE), PIL.Image.Resampling.BICUBIC) for image in row]


def main(demo: Demo) -> None:
    """Run the edits and say where everything is."""
    editor = chronoedit.load("tiny")
    rows, labels, written = [], [], []
    for name, prompt, seed in EDITS[: demo.edits]:
        picture = load_image(HERE / name)
        print(f"{name}: {prompt!r} …", flush=True)
        start = time.perf_counter()
        request = chronoedit.EditRequest(
            image=HERE / name, prompt=prompt, seed=seed, reasoning=True, return_trajectory=True
        )
        result = editor.edit(request)
        print(f"  done in {time.perf_counter() - start:.1f} s")
        stem = demo.output_dir / Path(name).stem
        metadata = {"version": chronoedit.__version__, **result_record(result)}
        save_image(result.image, stem.with_suffix(".png"), metadata)
        assert result.trajectory is not None
        save_video(result.trajectory, stem.with_suffix(".mp4"))
        written += [stem.with_suffix(".png"), stem.with_suffix(".mp4")]
        rows.append(sheet_row(picture, result))
        labels.append(prompt)
    sheet = demo.output_dir / "sheet.png"
    save_image(contact_sheet(rows, labels, columns=("before", *["imagined on the way"] * len(MOMENTS), "after")), sheet)
    print("written:", *(f"  {path}" for path in (*written, sheet)), sep="\n")


def result_record(result: chronoedit.EditResult) -> dict[str, object]:
    """What the PNG remembers of the edit."""
    return {"request": result.request.to_json(), "hashes": result.hashes, "timings_s": result.timings_s}


if __name__ == "__main__":
    main(tyro.cli(Demo))
