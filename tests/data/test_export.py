"""The export of the world: the published table, videos of 2 and 29 frames, and going on where it stopped."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from chronoedit.data import export as module
from chronoedit.data.export import Export, export_world
from chronoedit.errors import OutputError
from chronoedit.media import read_video
from chronoedit.world import FRAMES, sample_item


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_world(Export(count=4, first_seed=10), folder)
    return folder


def test_table_in_the_published_layout(folder: Path) -> None:
    table = rows(folder)
    assert list(table[0]) == ["key", "video", "prompt", "long_prompt", "split"]
    assert [row["key"] for row in table] == [f"world_{seed:06d}" for seed in range(10, 14)]
    items = [sample_item(seed) for seed in range(10, 14)]
    assert [row["prompt"] for row in table] == [item.prompt for item in items]
    assert [row["long_prompt"] for row in table] == [item.long_prompt for item in items]
    assert {row["split"] for row in table} == {"in distribution"}
    assert all((folder / row["video"]).is_file() for row in table)


def test_pairs_and_clips(folder: Path) -> None:
    videos = [read_video(folder / row["video"]) for row in rows(folder)]
    assert sorted(len(video) for video in videos) == [2, 2, FRAMES, FRAMES]
    for seed, video in zip(range(10, 14), videos, strict=True):
        item = sample_item(seed)
        assert np.abs(video[0].astype(int) - item.input).mean() < 6
        assert np.abs(video[-1].astype(int) - item.target).mean() < 6


@pytest.mark.parametrize(("share", "clips"), [(0.0, 0), (0.125, 2), (0.5, 8), (1.0, 16)])
def test_share_of_clips_is_kept_and_spread(share: float, clips: int) -> None:
    export = Export(count=16, clip_share=share)
    chosen = [export.is_clip(k) for k in range(16)]
    assert sum(chosen) == clips and abs(sum(chosen[:8]) - clips / 2) <= 1


def test_a_stopped_export_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    save = module.save_video

    def counted(frames: np.ndarray, path: Path) -> None:
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(Path(path).name)
        save(frames, path)

    monkeypatch.setattr(module, "save_video", counted)
    export = Export(count=3, clip_share=0.0)
    with pytest.raises(KeyboardInterrupt):
        export_world(export, tmp_path)
    assert not (tmp_path / "metadata.csv").exists()
    monkeypatch.setattr(module, "save_video", lambda frames, path: (saved.append(Path(path).name), save(frames, path)))
    told: list[tuple[int, int]] = []
    export_world(export, tmp_path, lambda done, total: told.append((done, total)))
    assert saved == [f"world_{seed:06d}.mp4" for seed in range(3)]
    assert len(rows(tmp_path)) == 3 and told[-1] == (3, 3)
    export_world(Export(count=4, clip_share=0.0), tmp_path)
    assert len(rows(tmp_path)) == 4 and len(saved) == 4
    (tmp_path / "videos" / "world_000001.mp4").unlink()
    export_world(Export(count=4, clip_share=0.0), tmp_path)
    assert saved[-1] == "world_000001.mp4" and len(rows(tmp_path)) == 4


def test_a_folder_keeps_to_one_export(folder: Path) -> None:
    with pytest.raises(OutputError, match="holds another export"):
        export_world(Export(count=4, first_seed=20), folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count of 1 or more"),
        ({"count": 1, "first_seed": -1}, "seed of 0 or more"),
        ({"count": 2, "first_seed": 99_999}, "kept for evaluation"),
        ({"count": 1, "clip_share": 1.5}, "between 0"),
        ({"count": 1, "family": "ocean"}, "table, falling, any"),
    ],
)
def test_refusals(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Export(**arguments)
