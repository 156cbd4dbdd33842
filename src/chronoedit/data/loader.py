"""Which size an example is trained at, how its pictures are brought there, and which examples make a batch.

Nothing here is random but by (seed, epoch), so a run that was stopped sees the batches of one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from chronoedit.request import bucket_size


@dataclass(frozen=True, order=True)
class Bucket:
    """Examples that can be in one batch: latent frames (2 for pairs, 8 for clips), and pixels."""

    latent_frames: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The size of training: both sides, or an area whose aspect ratio each example keeps; sides are multiples.

    `clips` False makes a pair of every clip. Raises ValueError for one side alone, sides that are no multiples, or
    neither sides nor area.
    """

    height: int | None = None
    width: int | None = None
    area: int | None = None
    multiple: int = 16
    clips: bool = True

    def __post_init__(self) -> None:
        sides = {"height": self.height, "width": self.width}
        given = {name: side for name, side in sides.items() if side is not None}
        for name, side in given.items():
            if side < self.multiple or side % self.multiple:
                below = max(side // self.multiple, 1) * self.multiple
                raise ValueError(
                    f"{name} {side} is not a multiple of {self.multiple}; use {below} or {below + self.multiple}"
                )
        if len(given) == 1:
            raise ValueError(f"{next(iter(given))} is given alone; give height and width, or neither for an area")
        if not given and (self.area is None or self.area < self.multiple**2):
            raise ValueError(
                f"the area is {self.area} px; give height and width, or an area of {self.multiple**2} or more"
            )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at which a picture of this size is trained."""
        if self.height is not None and self.width is not None:
            return self.height, self.width
        assert self.area is not None
        return bucket_size(height, width, self.area, self.multiple)

    def fit(self, video: np.ndarray) -> np.ndarray:
        """Frames T H W 3 of a record, at the size of training; all by one transform.

        They are scaled so that they just cover the size, and the middle is cut out. A clip becomes its first and last
        frame where clips are not trained on.
        """
        if not self.clips:
            video = video[[0, -1]]
        height, width = self.size(*video.shape[1:3])
        scale = max(height / video.shape[1], width / video.shape[2])
        # the part of the picture that is kept, in its own pixels
        box_h, box_w = height / scale, width / scale
        top, left = (video.shape[1] - box_h) / 2, (video.shape[2] - box_w) / 2
        box = (left, top, left + box_w, top + box_h)
        if video.shape[1:3] == (height, width):
            return video
        frames = [Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box=box) for frame in video]
        return np.stack([np.asarray(frame) for frame in frames])


def epoch_batches(
    buckets: Sequence[Bucket], batch_size: int, seed: int, epoch: int, clip_share: float | None = None
) -> list[list[int]]:
    """The batches of an epoch: indices of examples of one bucket each, shuffled by (seed, epoch).

    Every example comes once, and a bucket's last batch may be smaller. With a `clip_share`, that share of the batches
    are clips: the kind that there is too little of comes round again, in another order and other batches.
    Raises ValueError without examples, for a batch size below 1, and for a share that the set cannot give.
    """
    if not buckets or batch_size < 1:
        raise ValueError(f"{len(buckets)} examples in batches of {batch_size}; at least 1 of each is needed")
    rng = np.random.default_rng((seed, epoch))
    if clip_share is None:
        return _shuffled(range(len(buckets)), buckets, batch_size, rng)
    kinds = [[k for k, bucket in enumerate(buckets) if (bucket.latent_frames > 2) == clips] for clips in (False, True)]
    shares = (1 - clip_share, clip_share)
    if not 0 <= clip_share <= 1 or any(share > 0 and not kind for share, kind in zip(shares, kinds, strict=True)):
        raise ValueError(
            f"clip share {clip_share} of {len(kinds[0])} pairs and {len(kinds[1])} clips; give a share from 0 to 1 of "
            "what there is"
        )
    once = [_shuffled(kind, buckets, batch_size, rng) for kind in kinds]
    whole = max(math.ceil(len(part) / share) for part, share in zip(once, shares, strict=True) if share > 0)
    clips = round(whole * clip_share)
    for kind, part, wanted in zip(kinds, once, (whole - clips, clips), strict=True):
        while len(part) < wanted:
            part += _shuffled(kind, buckets, batch_size, rng)
        del part[wanted:]
    mixed = [*once[0], *once[1]]
    return [mixed[k] for k in rng.permutation(len(mixed)).tolist()]


def _shuffled(
    members: Sequence[int], buckets: Sequence[Bucket], batch_size: int, rng: np.random.Generator
) -> list[list[int]]:
    by_bucket: dict[Bucket, list[int]] = {}
    for at in rng.permutation(len(members)).tolist():
        by_bucket.setdefault(buckets[members[at]], []).append(members[at])
    batches = [group[at : at + batch_size] for group in by_bucket.values() for at in range(0, len(group), batch_size)]
    return [batches[k] for k in rng.permutation(len(batches)).tolist()]
