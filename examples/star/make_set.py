"""The training set of the star: pairs (and clips) of bodies that become stars, none of them held out.

    python examples/star/make_set.py --output out/star/set

Writes pictures, clips and metadata.jsonl, as `chronoedit data check` and `chronoedit train lora` read them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from chronoedit.media import save_image, save_video, write_files
from chronoedit.world import FIRST_EVALUATION_SEED, SCENES, Item, sample_item
from chronoedit.world.scenes import MIX
from chronoedit.world.scenes.star import held_out
from chronoedit.world.splits import HARD_EDITS

FIRST_REHEARSED_SEED = 50_000  # the embedded model was trained on 0 to 34,999


def star_items(count: int) -> Iterator[Item]:
    """The first `count` star scenes in which nothing is held out, of seeds that are never evaluated."""
    items = (sample_item(seed, family="star") for seed in range(FIRST_EVALUATION_SEED))
    return itertools.islice((item for item in items if not held_out(item.scene)), count)


def known_items(count: int, *, evenly: bool) -> list[Item]:
    """`count` scenes of what the model knows: as the world draws them, or every edit as often as any other."""
    if not evenly:
        return [sample_item(FIRST_REHEARSED_SEED + k) for k in range(count)]
    edits = [edit for family in MIX for edit in SCENES[family].edits if edit not in HARD_EDITS]
    seeds = itertools.count(FIRST_REHEARSED_SEED)
    of_edit: dict[str, list[Item]] = {edit: [] for edit in edits}
    while sum(map(len, of_edit.values())) < count:
        item = sample_item(next(seeds))
        if len(of_edit[item.edit]) < math.ceil(count / len(edits)):
            of_edit[item.edit].append(item)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*of_edit.values()))
    return [item for item in in_turn if item is not None]


def write_pair(item: Item, name: str, folder: Path) -> dict[str, str]:
    """Write the pictures before and after; their row."""
    paths = {"input_image": f"{name}_before.png", "edited_image": f"{name}_after.png"}
    save_image(Image.fromarray(item.input), folder / paths["input_image"])
    save_image(Image.fromarray(item.target), folder / paths["edited_image"])
    return {"key": name, "prompt": item.prompt, **paths}


def write_clip(item: Item, name: str, folder: Path) -> dict[str, str]:
    """Write the whole trajectory; its row."""
    save_video(item.frames(), folder / f"{name}.mp4")
    return {"key": name, "prompt": item.prompt, "video": f"{name}.mp4"}


def main() -> None:
    """Write the set that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=64, help="of the new edit")
    parser.add_argument("--clips", type=int, default=64, help="trajectories of the first of those pairs")
    parser.add_argument("--rehearsed", type=int, default=0, help="pairs of what the model knows already")
    parser.add_argument("--rehearsed-clips", type=int, default=0, help="trajectories of the first of those")
    parser.add_argument("--rehearse-evenly", action="store_true", help="every known edit as often as any other")
    given = parser.parse_args()
    rows = []
    stars = list(star_items(given.pairs))
    known = known_items(given.rehearsed, evenly=given.rehearse_evenly)
    for kind, items, clips in (("star", stars, given.clips), ("known", known, given.rehearsed_clips)):
        rows += [write_pair(item, f"{kind}_{k:03d}", given.output) for k, item in enumerate(items)]
        rows += [write_clip(item, f"{kind}_{k:03d}_clip", given.output) for k, item in enumerate(items[:clips])]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_files({given.output / "metadata.jsonl": lines.encode()})
    print(given.output / "metadata.jsonl")


if __name__ == "__main__":
    main()
