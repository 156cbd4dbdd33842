"""Which guidance and flow shift a trained model is best used with: success on seeds that no training and no score uses.

Every setting edits the same items with the same seeds, without reasoning.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

import chronoedit
from chronoedit.evaluation.attempts import attempts, pixels_of
from chronoedit.evaluation.physics import score
from chronoedit.world import Item, sample_item
from pages import measured_by, table

FIRST_SEED = 60_000
BATCH = 8
HEAD = ("guidance", "flow shift", "right")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to try, each guidance with each flow shift."""

    model: str = "tiny"
    items: int = 56
    guidance: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)
    flow_shifts: tuple[float, ...] = (5.0,)


def successes(editor: chronoedit.Editor, items: Sequence[Item], guidance: float, flow_shift: float) -> int:
    """How many of the items come out right."""
    right = 0
    for start in range(0, len(items), BATCH):
        some = items[start : start + BATCH]
        requests = [
            chronoedit.EditRequest(
                image=item.input, prompt=item.prompt, seed=item.seed, guidance_scale=guidance, flow_shift=flow_shift
            )
            for item in some
        ]
        for item, attempt in zip(some, attempts(editor, requests), strict=True):
            assert attempt.image is not None  # only editors from elsewhere come without a picture
            right += score(item, pixels_of(attempt.image, item)).success
    return right


def main(options: Options) -> None:
    """Try all settings and print the table."""
    editor = chronoedit.load(options.model)
    items = [sample_item(FIRST_SEED + k) for k in range(options.items)]
    rows = []
    for guidance, shift in itertools.product(options.guidance, options.flow_shifts):
        right = successes(editor, items, guidance, shift)
        rows.append([f"{guidance:g}", f"{shift:g}", f"{right} of {len(items)}"])
        print(*rows[-1], file=sys.stderr)
    print(f"{measured_by()}\n{table(HEAD, rows)}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
