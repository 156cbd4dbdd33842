"""Small training sets in every format; each fixture says which public file it imitates."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.media import save_image, save_video

SIZE = 48
PROMPTS = ("turn the ball red", "lift the cup")


def picture(seed: int) -> np.ndarray:
    """A smooth random picture, uint8 48 48 3."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def pair(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Before, and after: the same with a square of another colour."""
    before = picture(index)
    after = before.copy()
    after[10:30, 12:32] = (200, 30, 30 + index)
    return before, after


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def published(folder: Path) -> None:
    """`data/example_dataset/metadata.csv` of nv-tlabs/ChronoEdit: key,video,prompt,umt5; two frames are a pair."""
    rows = []
    for index, prompt in enumerate(PROMPTS):
        save_video(np.stack(pair(index)), folder / "videos" / f"{index}.mp4")
        rows.append({"key": f"k{index}", "video": f"videos/{index}.mp4", "prompt": prompt, "umt5": f"umt5/{index}.pkl"})
    write_table(folder / "metadata.csv", rows)


def diffsynth(folder: Path) -> None:
    """`metadata.csv` of DiffSynth-Studio's image editing examples: image,prompt,input_image, paths from the table."""
    rows = []
    for index, prompt in enumerate(PROMPTS):
        for name, pixels in zip(("in", "out"), pair(index), strict=True):
            save_image(Image.fromarray(pixels), folder / f"{name}{index}.png")
        rows.append({"image": f"out{index}.png", "prompt": prompt, "input_image": f"in{index}.png"})
    write_table(folder / "metadata.csv", rows)


def musubi(folder: Path) -> None:
    """A dataset file of kohya-ss/musubi-tuner for editing models: image_path, control_path, caption."""
    lines = []
    for index, prompt in enumerate(PROMPTS):
        for name, pixels in zip(("control", "image"), pair(index), strict=True):
            save_image(Image.fromarray(pixels), folder / name / f"{index}.png")
        entry = {"image_path": f"image/{index}.png", "control_path": f"control/{index}.png", "caption": prompt}
        lines.append(json.dumps(entry))
    (folder / "dataset.jsonl").write_text("\n".join(lines) + "\n")


def named_pairs(folder: Path) -> None:
    """A folder as people collect them: 0_before.png, 0_after.png, 0.txt."""
    for index, prompt in enumerate(PROMPTS):
        for name, pixels in zip(("before", "after"), pair(index), strict=True):
            save_image(Image.fromarray(pixels), folder / f"{index}_{name}.png")
        (folder / f"{index}.txt").write_text(prompt + "\n")


def foldered_pairs(folder: Path) -> None:
    """A folder as control sets of ai-toolkit lie: source/0.png, target/0.png with target/0.txt."""
    for index, prompt in enumerate(PROMPTS):
        for name, pixels in zip(("source", "target"), pair(index), strict=True):
            save_image(Image.fromarray(pixels), folder / name / f"{index}.png")
        (folder / "target" / f"{index}.txt").write_text(prompt)


def parquet(folder: Path) -> None:
    """A shard of timbrooks/instructpix2pix-clip-filtered: structs of bytes and path, edit_prompt."""
    import pyarrow
    import pyarrow.parquet

    pairs = [[{"bytes": png(pixels), "path": None} for pixels in pair(index)] for index in range(len(PROMPTS))]
    table = pyarrow.table(
        {
            "original_prompt": ["a", "b"],
            "original_image": [before for before, _ in pairs],
            "edit_prompt": list(PROMPTS),
            "edited_image": [after for _, after in pairs],
        }
    )
    pyarrow.parquet.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=1)


def webdataset(folder: Path) -> None:
    """A shard as img2dataset and WebDataset write it: members of one sample follow each other."""
    with tarfile.open(folder / "00000.tar", "w") as archive:
        for index, prompt in enumerate(PROMPTS):
            before, after = pair(index)
            words = json.dumps({"caption": prompt, "seed": index}).encode()
            parts = {"input.png": png(before), "target.png": png(after), "json": words}
            for part, data in parts.items():
                member = tarfile.TarInfo(f"00000{index}.{part}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


SETS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "published": ("csv", published),
    "diffsynth": ("csv", diffsynth),
    "musubi": ("jsonl", musubi),
    "named pairs": ("folder", named_pairs),
    "foldered pairs": ("folder", foldered_pairs),
    "parquet": ("parquet", parquet),
    "webdataset": ("webdataset", webdataset),
}


@pytest.fixture(params=SETS)
def any_set(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """(format, folder) of each set in turn."""
    name, write = SETS[request.param]
    write(tmp_path)
    return name, tmp_path
