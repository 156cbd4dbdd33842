"""Manifests: every row becomes an item or is refused with its place and reason; pictures by their headers alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chronoedit.data import manifest as module
from chronoedit.data.manifest import (
    COLUMNS,
    BatchItem,
    Manifest,
    RowDefaults,
    every_combination,
    picture_size,
    read_manifest,
    read_prompts,
    seed_of,
)
from chronoedit.errors import DataError, ImageError
from chronoedit.request import EditRequest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures a.png (64x48), b.jpg (32x32), and turned.jpg, which is 20x40 stored and 40x20 shown."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "b.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 40)).save(tmp_path / "turned.jpg", exif=exif)
    return tmp_path


def read(folder: Path, text: str, name: str = "m.csv", **defaults: Any) -> Manifest:
    (folder / name).write_text(text, encoding="utf-8")
    return read_manifest(folder / name, RowDefaults(**defaults))


def only(manifest: Manifest) -> BatchItem:
    assert manifest.refused == ()
    (item,) = manifest.items
    return item


def test_a_row_is_a_request_with_its_place_name_and_size(folder: Path) -> None:
    item = only(read(folder, "image,prompt,key,seed\na.png,remove it,k1,5\n"))
    assert (item.name, item.place, item.photo_size) == ("a-k1", "row 1 (line 2)", (64, 48))
    assert item.request == EditRequest(image=str(folder / "a.png"), prompt="remove it", seed=5)


def test_every_column_is_read_as_its_field_holds_it(folder: Path) -> None:
    header = (
        "image,prompt,negative_prompt,height,width,at_photo_size,num_inference_steps,guidance_scale,guidance_until,"
    )
    header += "step_cache,flow_shift,seed,reasoning,num_reasoning_steps,image_embed_mode,solver,integer_timesteps,"
    header += "noise_device,original_prompt"
    row = "a.png,go,bad,32,48,yes,16,2.5,0.5,mag:0.05,3,7,TRUE,2,squash,euler,false,device,geh"
    assert set(header.split(",")) | {"key"} == set(COLUMNS)
    assert only(read(folder, f"{header}\n{row}\n")).request == EditRequest(
        image=str(folder / "a.png"),
        prompt="go",
        negative_prompt="bad",
        height=32,
        width=48,
        at_photo_size=True,
        num_inference_steps=16,
        guidance_scale=2.5,
        guidance_until=0.5,
        step_cache="mag:0.05",
        flow_shift=3.0,
        seed=7,
        reasoning=True,
        num_reasoning_steps=2,
        image_embed_mode="squash",
        solver="euler",
        integer_timesteps=False,
        noise_device="device",
        original_prompt="geh",
    )


def test_json_lines_say_the_same_as_a_table(folder: Path) -> None:
    lines = [{"image": "a.png", "prompt": "go", "key": 3, "height": 32, "seed": None, "guidance_scale": "2"}]
    item = only(read(folder, "\n".join(map(json.dumps, lines)) + "\n\n", "m.jsonl"))
    table = only(read(folder, "image,prompt,key,height,seed,guidance_scale\na.png,go,3,32,,2\n"))
    assert item == replace(table, place="row 1 (line 1)")
    assert (item.request.height, item.request.guidance_scale, item.request.seed) == (32, 2.0, seed_of("a-3"))


def test_without_key_and_seed_both_follow_from_the_row(folder: Path) -> None:
    first, second = read(folder, "image,prompt\na.png,go\na.png,go\n").items
    assert (first.name, second.name) == ("a-00001", "a-00002")
    assert first.request.seed == seed_of("a-00001") != second.request.seed
    longer = read(folder, "image,prompt\na.png,go\na.png,go\nb.jpg,go\n").items
    assert longer[:2] == (first, second)


def test_defaults_fill_empty_cells_and_rows_count_first(folder: Path) -> None:
    text = "image,prompt,seed,num_inference_steps,reasoning,at_photo_size\na.png,a,,,,\nb.jpg,b,0,3,false,no\n"
    values = {"seed": 9, "num_reasoning_steps": 2, "at_photo_size": True}
    first, second = (item.request for item in read(folder, text, values=values, preset="turbo").items)
    assert (first.seed, first.num_inference_steps, first.reasoning, first.at_photo_size) == (9, 8, True, True)
    assert (second.seed, second.reasoning, second.num_reasoning_steps) == (0, False, None)
    assert (second.num_inference_steps, second.at_photo_size) == (3, False)
    assert second.guidance_scale == 1.0  # of the preset


def test_a_row_without_reasoning_keeps_the_rest_of_a_thinking_preset(folder: Path) -> None:
    first, second = read(folder, "image,prompt,reasoning\na.png,a,\na.png,b,false\n", preset="think").items
    assert first.request.reasoning and not second.request.reasoning


REFUSED = {
    "gone.png,go,k,,": r"there is no file .*gone\.png; check the path",
    "notes.txt,go,k,,": r"notes\.txt is not a picture that can be read",
    "tiny.png,go,k,,": r"tiny\.png is 8x8 px; give one of at least 16",
    "long.png,go,k,,": r"long\.png is 400x20 px, longer than 16:1",
    ".,go,k,,": r"is a folder|is an empty path|its result",
    ",go,k,,": "it has no image; fill in that cell",
    "a.png,,k,,": "it has no prompt; fill in that cell",
    "a.png,  ,k,,": "prompt is empty",
    "a.png,go,k,721,": "height 721 is not a multiple of 16; use 720 or 736",
    "a.png,go,k,tall,": "height is 'tall'; give a whole number",
    "a.png,go,k,,maybe": "reasoning is 'maybe'; give true or false",
    "a.png,go,x/y,,": r"would be called 'a-x/y', which has '/' in it; give another key",
    f"a.png,go,{'k' * 200},,": "longer than 200 bytes; give a shorter key",
    "a.png,go,k,,,more": r"it has more cells than there are columns",
    "a.png,go,FIRST,,": r"would be called 'a-FIRST', as that of row 1 \(line 2\); give another key",
}


@pytest.mark.parametrize("row", REFUSED)
def test_a_bad_row_is_refused_and_the_others_stay(folder: Path, row: str) -> None:
    (folder / "notes.txt").write_text("no picture")
    Image.new("L", (8, 8)).save(folder / "tiny.png")
    Image.new("L", (400, 20)).save(folder / "long.png")
    text = f"image,prompt,key,height,reasoning\na.png,go,first,,\n{row}\nb.jpg,go,last,,\n"
    manifest = read(folder, text)
    assert [item.name for item in manifest.items] == ["a-first", "b-last"]
    (refusal,) = manifest.refused
    assert refusal.place == "row 2 (line 3)"
    with pytest.raises(AssertionError, match=REFUSED[row]):
        raise AssertionError(refusal.reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "it is no JSON"),
        ("[1]", "it is a list; expected an object"),
        ('{"image": "a.png", "prompt": "go", "colour": 1}', "there is no column 'colour'; choose from key, image"),
        ('{"image": "a.png", "prompt": "go", "num_variants": 2}', "a row cannot set 'num_variants': give a row for"),
        ('{"image": "a.png", "prompt": "go", "height": 32.5}', "height is 32.5; give an integer"),
        ('{"image": "a.png", "prompt": 3}', "it has no prompt"),
        ('{"image": "a.png", "prompt": "go", "solver": "magic"}', "there is no solver 'magic'"),
        ('{"image": "a.png", "prompt": "go", "reasoning": false, "num_reasoning_steps": 2}', "leave one cell empty"),
    ],
)
def test_a_bad_json_line_is_refused(folder: Path, line: str, reason: str) -> None:
    manifest = read(folder, f'{line}\n\n{{"image": "b.jpg", "prompt": "go"}}\n', "m.jsonl")
    assert [item.name for item in manifest.items] == ["b-00002"]
    assert manifest.refused[0].place == "row 1 (line 1)" and reason in manifest.refused[0].reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,prompt,colour\n", "m.csv: there is no column 'colour'; choose from key, image"),
        ("image,prompt,return_latents\n", "a row cannot set 'return_latents'"),
        ("image,prompt,prompt\n", "two columns 'prompt'"),
        ("image,words\n", "there is no column 'words'"),
        ("image\n", "has no column 'prompt', only image; add it"),
        ("", "has no column 'image', only an empty line"),
        ("image,prompt\n", "has no rows"),
        ('image,prompt\n"a.png,go\n', "is no CSV table"),
    ],
)
def test_a_table_that_cannot_be_read(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(folder, text)


def test_files_that_are_no_manifest(folder: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png is no manifest; give a file that ends in \.csv or \.jsonl"):
        read_manifest(folder / "a.png", RowDefaults())
    with pytest.raises(DataError, match=r"none\.csv cannot be read: No such file"):
        read_manifest(folder / "none.csv", RowDefaults())
    (folder / "old.csv").write_bytes("image,prompt\na.png,Küche".encode("latin-1"))
    with pytest.raises(DataError, match=r"old\.csv is not UTF-8"):
        read_manifest(folder / "old.csv", RowDefaults())


def test_a_spreadsheet_s_mark_and_quoted_lines_are_understood(folder: Path) -> None:
    first, second = read(folder, '\ufeffimage,prompt\na.png,"one,\ntwo"\nb.jpg,x\n').items
    assert first.request.prompt == "one,\ntwo" and second.place == "row 2 (line 4)"


def test_every_picture_with_every_prompt_and_seed(folder: Path) -> None:
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    manifest = every_combination(folder, ["rain", "snow"], [3, 4], RowDefaults(values={"height": 32}))
    assert len(manifest.items) == 3 * 2 * 2 and manifest.refused == ()
    assert [item.name for item in manifest.items[:4]] == ["a-p1-s3", "a-p1-s4", "a-p2-s3", "a-p2-s4"]
    item = manifest.items[-1]
    assert (item.name, item.request.prompt, item.request.seed, item.request.height) == ("turned-p2-s4", "snow", 4, 32)
    bare = every_combination(folder, ["rain"], [], RowDefaults())
    assert [item.name for item in bare.items] == ["a-p1", "b-p1", "turned-p1"]
    assert bare.items[0].request.seed == seed_of("a-p1")


def test_pictures_of_one_name_are_told_apart_or_refused(folder: Path) -> None:
    Image.new("RGB", (32, 32)).save(folder / "a.webp")
    manifest = every_combination(folder, ["rain"], [], RowDefaults())
    assert len(manifest.items) == 3
    assert manifest.refused[0].place == "a.webp, p1" and "as that of a.png, p1" in manifest.refused[0].reason


def test_folders_and_prompts_that_are_not_there(folder: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        every_combination(folder / "none", ["go"], [], RowDefaults())
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="there are no pictures in"):
        every_combination(folder / "empty", ["go"], [], RowDefaults())
    with pytest.raises(DataError, match="there are no prompts"):
        every_combination(folder, [], [], RowDefaults())


def test_prompts_are_texts_or_lines_of_files(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("make it rain\n\n  make it snow \n", encoding="utf-8")
    assert read_prompts(["go", str(tmp_path / "p.txt")]) == ["go", "make it rain", "make it snow"]
    with pytest.raises(DataError, match=r"none\.txt cannot be read"):
        read_prompts([str(tmp_path / "none.txt")])


def test_sizes_are_as_shown_and_pixels_are_not_read(folder: Path) -> None:
    assert picture_size(folder / "turned.jpg") == (40, 20)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:200])
    assert picture_size(folder / "cut.png") == (64, 64)
    with pytest.raises(ImageError, match="is a folder"):
        picture_size(folder)


def test_a_picture_s_header_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(module, "picture_size", lambda path: opened.append(path.name) or (64, 48))
    manifest = every_combination(folder, ["a", "b"], [1, 2, 3], RowDefaults())
    assert len(manifest.items) == 18 and opened == ["a.png", "b.jpg", "turned.jpg"]


def test_defaults_that_no_row_could_set() -> None:
    with pytest.raises(ValueError, match="'num_variants' is no column"):
        RowDefaults(values={"num_variants": 2})
