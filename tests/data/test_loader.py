"""Sizes, the one transform of a record's pictures, and batches."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from chronoedit.data.loader import Bucket, Geometry, epoch_batches


def test_all_frames_are_cut_alike() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    fitted = Geometry(height=48, width=48).fit(np.stack([frame, frame]))
    assert fitted.shape == (2, 48, 48, 3)
    assert np.array_equal(fitted[0], fitted[1])
    middle = Image.fromarray(frame).crop((20, 0, 80, 60)).resize((48, 48), Image.Resampling.LANCZOS)
    assert np.abs(fitted[0].astype(int) - np.asarray(middle)).mean() < 1.5  # the edge of a crop ends the filter


def test_the_right_size_is_left_alone() -> None:
    video = np.random.default_rng(0).integers(0, 256, (26, 32, 64, 3), dtype=np.uint8)
    assert Geometry(height=32, width=64).fit(video) is video
    pair = Geometry(height=32, width=64, clips=False).fit(video)
    assert np.array_equal(pair, video[[0, -1]])


@pytest.mark.parametrize(("height", "width", "size"), [(720, 1280, (720, 1280)), (500, 500, (960, 960))])
def test_area_keeps_the_aspect_ratio(height: int, width: int, size: tuple[int, int]) -> None:
    assert Geometry(area=720 * 1280).size(height, width) == size


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({"height": 100, "width": 96}, "height 100 is not a multiple of 16; use 96 or 112"),
        ({"height": 96}, "height is given alone"),
        ({}, "give height and width, or an area"),
        ({"area": 10}, "the area is 10 px"),
    ],
)
def test_sizes_that_cannot_be(sides: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry(**sides)


def test_batches_of_one_bucket_and_every_example_once() -> None:
    buckets = [Bucket(2, 64, 64)] * 7 + [Bucket(8, 64, 64)] * 4 + [Bucket(2, 64, 96)]
    batches = epoch_batches(buckets, 3, seed=1, epoch=0)
    assert sorted(index for batch in batches for index in batch) == list(range(12))
    assert all(len({buckets[index] for index in batch}) == 1 and len(batch) <= 3 for batch in batches)
    assert batches == epoch_batches(buckets, 3, seed=1, epoch=0)
    assert batches != epoch_batches(buckets, 3, seed=1, epoch=1)
    assert len(batches) == len(epoch_batches(buckets, 3, seed=2, epoch=5)) == 6
    with pytest.raises(ValueError, match="0 examples in batches of 3"):
        epoch_batches([], 3, seed=0, epoch=0)


@pytest.mark.parametrize(
    ("pairs", "clips", "share"), [(8, 2, 0.5), (2, 8, 0.25), (5, 5, 0.2), (4, 3, 1.0), (3, 0, 0.0)]
)
def test_pairs_and_clips_by_ratio(pairs: int, clips: int, share: float) -> None:
    buckets = [Bucket(2, 64, 64)] * pairs + [Bucket(8, 64, 64)] * clips
    batches = epoch_batches(buckets, 1, seed=1, epoch=0, clip_share=share)
    of_clips = [batch for batch in batches if batch[0] >= pairs]
    assert len(of_clips) == pytest.approx(share * len(batches), abs=0.5)
    wanted = {k for k, bucket in enumerate(buckets) if (share if bucket.latent_frames > 2 else 1 - share) > 0}
    assert {index for batch in batches for index in batch} == wanted  # each at least once
    assert batches == epoch_batches(buckets, 1, seed=1, epoch=0, clip_share=share)


def test_a_ratio_that_the_set_cannot_give() -> None:
    with pytest.raises(ValueError, match="clip share 0.5 of 3 pairs and 0 clips"):
        epoch_batches([Bucket(2, 64, 64)] * 3, 1, seed=0, epoch=0, clip_share=0.5)
