"""The demo: edit pictures of this folder with the embedded model, with reasoning; PNG, mp4 and a sheet of each course.

Run by `make demo`; `--edits 3` runs all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import tyro

import chronoedit
from chronoedit.apps.options import ModelFlags
from chronoedit.apps.record import edit_metadata
from chronoedit.media import contact_sheet, load_image, save_image, save_video

HERE = Path(__file__).parent
# picture, prompt, seed; the first is the demo
EDITS = (
    ("table.png", "pick up the yellow ball with the robot arm", 1),
    ("falling.png", "cut the rope that holds the blue cone", 1),
    ("objects.png", "recolour the green cube to orange", 2),
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
        print(f"{name}: {prompt!r}, with reasoning", flush=True)
        request = chronoedit.EditRequest(
            image=HERE / name, prompt=prompt, seed=seed, reasoning=True, return_trajectory=True
        )
        result = editor.edit(request)
        print(f"  {result.timings_s['total']:.1f} s")
        picture, video = (demo.output_dir / Path(name).with_suffix(suffix) for suffix in (".png", ".mp4"))
        assert result.trajectory is not None
        save_image(result.image, picture, edit_metadata(result, ModelFlags()))
        save_video(result.trajectory, video)
        written += [picture, video]
        rows.append(sheet_row(load_image(HERE / name), result))
        labels.append(prompt)
    sheet = demo.output_dir / "sheet.png"
    save_image(contact_sheet(rows, labels, ("before", *["on the way"] * len(MOMENTS), "after")), sheet)
    print("written:", *(f"  {path}" for path in (*written, sheet)), sep="\n")


if __name__ == "__main__":
    main(tyro.cli(Demo))
