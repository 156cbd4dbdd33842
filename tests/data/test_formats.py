"""Training sets are read as they are, in every format; what is wrong is said with its row."""

from __future__ import annotations

import gc
import json
import logging
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.data.formats import iter_records, open_records
from chronoedit.data.records import Record, frames, kind_of, split
from chronoedit.errors import DataError, MissingExtraError
from chronoedit.media import save_image, save_video

from .conftest import PROMPTS, SIZE, diffsynth, named_pairs, pair, parquet, picture, published, webdataset, write_table


def test_every_format_gives_the_same_examples(any_set: tuple[str, Path]) -> None:
    name, folder = any_set
    found = open_records(folder)
    assert found.format == name
    assert [record.prompt for record in found.records] == list(PROMPTS)
    lossy = 12 if found.records[0].video is not None else 0
    for index, record in enumerate(found.records):
        again: Record = pickle.loads(pickle.dumps(record))  # as it reaches another process
        video = frames(again)
        assert video.shape == (2, SIZE, SIZE, 3)
        assert np.abs(video.astype(int) - np.stack(pair(index))).mean() <= lossy


def test_records_stream_in_the_same_order(any_set: tuple[str, Path]) -> None:
    _, folder = any_set
    assert list(iter_records(folder)) == open_records(folder).records


def test_a_stream_needs_no_captions_where_none_are_wanted(tmp_path: Path) -> None:
    for name, write in (("csv", diffsynth), ("parquet", parquet)):
        folder = tmp_path / name
        folder.mkdir()
        write(folder)
        without_captions(folder)
        with pytest.raises(DataError, match="no column of captions"):
            next(iter_records(folder))
        records = list(iter_records(folder, captions=False))
        assert [record.prompt for record in records] == ["", ""] and len(frames(records[1])) == 2
    with pytest.raises(DataError, match="there is no"):
        iter_records(tmp_path / "none")  # said at once, not when the first is read


def without_captions(folder: Path) -> None:
    import pyarrow.parquet

    for path in folder.glob("*.csv"):
        write_table(path, [{"image": f"out{k}.png", "input_image": f"in{k}.png"} for k in range(2)])
    for path in folder.glob("*.parquet"):
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns(["edit_prompt"]), path)


def test_an_archive_is_read_without_being_remembered(tmp_path: Path) -> None:
    webdataset(tmp_path)
    stream = iter_records(tmp_path / "00000.tar")
    assert next(stream).key == "00000/000000"
    open_archives = [each for each in gc.get_objects() if type(each) is tarfile.TarFile]
    assert len(open_archives) == 1 and len(open_archives[0].members) == 0


def test_umt5_is_noticed_once_and_never_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    published(tmp_path)
    with caplog.at_level(logging.WARNING, logger="chronoedit"):
        records = open_records(tmp_path / "metadata.csv").records
    assert [record.key for record in records] == ["k0", "k1"]
    assert caplog.text.count("are pickles and are not opened") == 1


def test_paths_from_another_folder(tmp_path: Path) -> None:
    diffsynth(tmp_path)
    (tmp_path / "tables").mkdir()
    table = (tmp_path / "metadata.csv").rename(tmp_path / "tables" / "metadata.csv")
    assert len(frames(open_records(table, tmp_path).records[1])) == 2
    with pytest.raises(DataError, match="No such file"):
        frames(open_records(table).records[1])


@pytest.mark.parametrize(("count", "kept"), [(2, 2), (5, 2), (26, 26), (29, 26)])
def test_pairs_and_clips(tmp_path: Path, count: int, kept: int) -> None:
    video = np.stack([np.full((16, 16, 3), 8 * k, np.uint8) for k in range(count)])
    save_video(video, tmp_path / "a.mp4")
    write_table(tmp_path / "metadata.csv", [{"key": "a", "video": "a.mp4", "prompt": "p"}])
    found = frames(open_records(tmp_path).records[0])
    assert len(found) == kept
    middle = found[:, 8, 8, 0].astype(int)
    expected = [0, count - 1] if kept == 2 else [*range(25), count - 1]
    assert np.abs(middle - 8 * np.array(expected)).max() <= 4


def test_a_first_frame_of_its_own(tmp_path: Path) -> None:
    save_video(np.zeros((26, 16, 16, 3), np.uint8), tmp_path / "a.mp4")
    save_image(Image.new("RGB", (16, 16), "white"), tmp_path / "first.png")
    write_table(tmp_path / "metadata.csv", [{"video": "a.mp4", "prompt": "p", "input_image": "first.png"}])
    found = frames(open_records(tmp_path).records[0])
    assert (found[0] == 255).all() and found[1].max() < 10


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"video": "a.mp4", "key": "k"}, r"no column of captions .*its columns: video, key"),
        ({"prompt": "p", "image": "a.png"}, r"neither videos \(video\) nor pictures before and after"),
    ],
)
def test_missing_columns(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    write_table(tmp_path / "metadata.csv", [columns])
    with pytest.raises(DataError, match=message):
        open_records(tmp_path)


def test_rows_that_are_wrong_are_named(tmp_path: Path) -> None:
    diffsynth(tmp_path)
    (tmp_path / "out0.png").write_bytes((tmp_path / "out0.png").read_bytes()[:60])
    save_image(Image.fromarray(picture(5)).resize((SIZE, 32)), tmp_path / "out1.png")
    broken, uneven = open_records(tmp_path).records
    with pytest.raises(DataError, match=r"metadata.csv:2: .*out0.png is damaged or cut short"):
        frames(broken)
    with pytest.raises(DataError, match=r"metadata.csv:3: its pictures are of different sizes, 48x48 and 48x32 px"):
        frames(uneven)
    (tmp_path / "in0.png").unlink()
    with pytest.raises(DataError, match=r"metadata.csv:2: .*in0.png cannot be read: No such file"):
        frames(broken)


@pytest.mark.parametrize("count", [1, 7])
def test_videos_that_are_neither(tmp_path: Path, count: int) -> None:
    save_video(np.zeros((count, 16, 16, 3), np.uint8), tmp_path / "a.mp4")
    write_table(tmp_path / "metadata.csv", [{"key": "a", "video": "a.mp4", "prompt": "p"}])
    with pytest.raises(DataError, match=rf"metadata.csv:2: a video of {count} frames?; a pair has 2 or 5, a clip 26"):
        frames(open_records(tmp_path).records[0])
    assert kind_of(count) is None


def test_jsonl_lines_that_are_wrong_do_not_hide_the_others(tmp_path: Path) -> None:
    good = {"image_path": "a.png", "control_path": "b.png", "caption": "p"}
    (tmp_path / "d.jsonl").write_text(json.dumps(good) + "\n{\n[1]\n" + json.dumps({"caption": "x"}) + "\n")
    one, two, three, four = open_records(tmp_path).records
    assert one.problem is None
    for record, message in ((two, "d.jsonl:2: no JSON"), (three, "d.jsonl:3: list"), (four, "neither a video nor a")):
        with pytest.raises(DataError, match=message):
            frames(record)


def test_half_a_pair(tmp_path: Path) -> None:
    named_pairs(tmp_path)
    (tmp_path / "1_after.png").unlink()
    with pytest.raises(DataError, match="1: it has neither a video nor a picture after"):
        frames(open_records(tmp_path).records[1])


def test_two_rows_of_one_key(tmp_path: Path) -> None:
    write_table(tmp_path / "metadata.csv", [{"key": "a", "video": "a.mp4", "prompt": "p"}] * 2)
    with pytest.raises(DataError, match=r"metadata.csv:2 and metadata.csv:3 have the same key 'a'"):
        open_records(tmp_path)


def test_what_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no .*nowhere"):
        open_records(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no training set: no metadata.csv"):
        open_records(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"is no index of a training set; expected .csv, .jsonl, .parquet, .tar"):
        open_records(tmp_path / "notes.txt")
    (tmp_path / "metadata.csv").write_text("key,video,prompt\n")
    with pytest.raises(DataError, match=r"\(csv\) has no examples"):
        open_records(tmp_path)


def test_archives_that_are_cut(tmp_path: Path) -> None:
    webdataset(tmp_path)
    path = tmp_path / "00000.tar"
    records = open_records(tmp_path).records
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"00000.tar:.*input.png is cut short"):
        frames(records[0])
    path.write_bytes(b"not a tar" * 100)
    with pytest.raises(DataError, match="cannot be read as an uncompressed tar"):
        open_records(tmp_path)


def test_damaged_json_in_an_archive(tmp_path: Path) -> None:
    (tmp_path / "0.json").write_text("{")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "0.json", "0.json")
    with pytest.raises(DataError, match="a.tar:0.json: 0.json is no JSON"):
        frames(open_records(tmp_path / "a.tar").records[0])


def test_parquet_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r'pip install "chronoedit\[parquet\]"'):
        open_records(tmp_path)


def test_damaged_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="a.parquet cannot be read"):
        open_records(tmp_path)


def test_split_follows_the_key_alone() -> None:
    records = [Record(row=str(k), key=f"key{k}") for k in range(2000)]
    train, validation = split(records, 0.1)
    assert len(train) + len(validation) == 2000 and 150 < len(validation) < 250
    fewer = split(records[::2], 0.1)[1]
    assert {record.key for record in fewer} == {record.key for record in validation} & {r.key for r in records[::2]}
    assert split(records, 0.0) == (records, [])
    with pytest.raises(ValueError, match="validation share 1.0"):
        split(records, 1.0)
