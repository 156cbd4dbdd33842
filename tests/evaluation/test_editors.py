"""Editors of a benchmark: a command that no prompt can bend, folders of results, copy and noise."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.data.records import FileBlob
from chronoedit.evaluation.cases import Case
from chronoedit.evaluation.editors import (
    BASELINES,
    Command,
    EditFailed,
    Folder,
    Ours,
    file_stem,
    filled,
    open_external,
)
from chronoedit.request import EditRequest, EditResult

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8))
HOSTILE = """make it "red"; $(touch bad) `touch bad` $HOME 'x' {output} {seed} \\ * > bad && touch bad\nnext line –é"""


def case(prompt: str = "make it red", key: str = "a") -> Case:
    return Case(key=key, prompt=prompt, image=FileBlob(Path("unused")))


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A program that notes its arguments, and mirrors the picture."""
    path = tmp_path / "a program.py"
    path.write_text(
        "import json, sys\nfrom PIL import Image, ImageOps\n"
        f"json.dump(sys.argv[1:], open({str(tmp_path / 'said.json')!r}, 'w'))\n"
        "given = dict(word.split('=', 1) for word in sys.argv[1:] if '=' in word)\n"
        "if 'fail' in sys.argv[2]: sys.exit('it is broken')\n"
        "if 'nothing' not in sys.argv[2]: ImageOps.mirror(Image.open(sys.argv[1])).save(given['--out'])\n"
    )
    return f"'{sys.executable}' '{path}' {{input}} {{prompt}} --out={{output}} --seed={{seed}}"


def test_a_command_gets_its_arguments_whole(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.chdir(tmp_path)
    edited = Command(line=program).edit(case(HOSTILE), PICTURE, 7)
    assert np.array_equal(np.asarray(edited), np.asarray(PICTURE)[:, ::-1])
    source, prompt, out, seed = json.loads((tmp_path / "said.json").read_text())
    assert prompt == HOSTILE and seed == "--seed=7"
    assert source.endswith("input.png") and out.startswith("--out=") and not Path(source).exists()
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("fail", r"failed \(exit code 1\): it is broken"), ("nothing", "wrote no {output}"), ("a\0b", "cannot be run")],
)
def test_a_command_that_fails_says_why(program: str, prompt: str, message: str) -> None:
    with pytest.raises(EditFailed, match=message):
        Command(line=program).edit(case(prompt), PICTURE, 0)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(EditFailed, match="no-such-program cannot be run"):
        Command(line="no-such-program {input} {output}").edit(case(), PICTURE, 0)


def test_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    script = "import sys; open(sys.argv[2], 'w').write('no picture')"
    with pytest.raises(EditFailed, match=r"output\.png is not a picture"):
        Command(line=f'{sys.executable} -c "{script}" {{input}} {{output}}').edit(case(), PICTURE, 0)


def test_a_slow_command_is_ended_with_what_it_started(tmp_path: Path) -> None:
    child = f"import time; time.sleep(2); open({str(tmp_path / 'late')!r}, 'w')"
    script = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    path = tmp_path / "slow.py"
    path.write_text(script)
    started = time.monotonic()
    with pytest.raises(EditFailed, match=r"longer than 0\.8 s"):
        Command(line=f"{sys.executable} {path} {{input}} {{output}}", timeout_s=0.8).edit(case(), PICTURE, 0)
    assert time.monotonic() - started < 10
    time.sleep(2.2)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("edit {input}", "no {output}"),
        ("edit {prompt}", "no {input} and no {output}"),
        ("edit {input} {output} {strength}", "{strength}, which is unknown"),
        ("edit {input} {output} 'open", "check its quotes"),
    ],
)
def test_a_line_that_cannot_be_is_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Command(line=line)


def test_a_time_out_must_be_one() -> None:
    with pytest.raises(ValueError, match="positive"):
        Command(line="edit {input} {output}", timeout_s=0)


def test_filling_in_is_done_once() -> None:
    assert filled("p={prompt}", {"prompt": "{output} {x}", "output": "o"}) == "p={output} {x}"
    assert filled("{x}{output}", {"output": "o"}) == "{x}o"


def test_a_folder_of_results(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "part" / "1.png")
    blue.save(tmp_path / "part" / "1-1.webp", lossless=True)
    red.save(tmp_path / f"{file_stem('what? ever')}.jpg")
    folder = Folder(path=tmp_path, first_seed=5)
    assert folder.edit(case(key="part/1"), PICTURE, 5).getpixel((3, 3)) == (255, 0, 0)
    assert folder.edit(case(key="part/1"), PICTURE, 6).getpixel((3, 3)) == (0, 0, 255)
    assert folder.edit(case(key="what? ever"), PICTURE, 5).size == (32, 32)
    with pytest.raises(EditFailed, match=r"there is no picture part/1-2\.png"):
        folder.edit(case(key="part/1"), PICTURE, 7)
    (tmp_path / "part" / "2.png").write_text("no picture")
    with pytest.raises(EditFailed, match="not a picture"):
        folder.edit(case(key="part/2"), PICTURE, 5)


def test_a_key_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "secret.png")
    inner = tmp_path / "inner"
    inner.mkdir()
    for key in ("../secret", str(tmp_path / "secret")):
        with pytest.raises(EditFailed, match="there is no picture"):
            Folder(path=inner).edit(case(key=key), PICTURE, 0)


def test_which_editor_is_meant(tmp_path: Path) -> None:
    assert isinstance(open_external(str(tmp_path), 1.0), Folder)
    command = open_external("edit {input} {output}", 5.0)
    assert isinstance(command, Command) and command.timeout_s == 5 and command.identity == {"command": command.name}
    with pytest.raises(ValueError, match="no folder and no command"):
        open_external("nowhere", 1.0)
    with pytest.raises(ValueError, match="there is no folder"):
        Folder(path=tmp_path / "nowhere")


def test_copy_and_noise() -> None:
    assert BASELINES["copy"].edit(case(), PICTURE, 3) is PICTURE
    noise = BASELINES["noise"].edit(case(), PICTURE, 0)
    pixels = np.asarray(noise)
    assert noise.size == PICTURE.size and 120 < pixels.mean() < 135 and pixels.std() > 60
    assert np.array_equal(pixels, np.asarray(BASELINES["noise"].edit(case(), PICTURE, 0)))
    assert not np.array_equal(pixels, np.asarray(BASELINES["noise"].edit(case(key="b"), PICTURE, 0)))


class Echo:
    """An editor of this package, as far as it is asked."""

    def __init__(self) -> None:
        self.asked: list[EditRequest] = []

    def edit(self, request: EditRequest) -> EditResult:
        self.asked.append(request)
        image = request.image
        assert isinstance(image, Image.Image)
        return EditResult(
            image=image,
            images=[image],
            video=np.zeros((1, 1, 1, 3), np.uint8),
            trajectory=None,
            latents=None,
            request=request,
            timings_s={},
            hashes={},
        )

    def reconstruct(self, image: Image.Image) -> Image.Image:
        return image


def test_ours_is_asked_with_its_settings() -> None:
    echo = Echo()
    ours = Ours(editor=echo, name="m", identity={}, settings={"num_inference_steps": 3, "reasoning": True})
    assert ours.edit(case("turn it"), PICTURE, 9) is PICTURE
    request = echo.asked[0]
    assert (request.prompt, request.seed, request.num_inference_steps) == ("turn it", 9, 3)
    assert request.reasoning and request.at_photo_size
    with pytest.raises(EditFailed, match="prompt is empty"):
        ours.edit(case(" "), PICTURE, 0)


@pytest.mark.parametrize("key", ["a", "3", "en_12.b-c"])
def test_a_key_that_can_be_a_file_name_stays(key: str) -> None:
    assert file_stem(key) == key


def test_other_keys_become_names_of_their_own() -> None:
    keys = ["a/b", "a-b", "a b", "..", "", "é" * 300, "x" * 300, "-a"]
    stems = [file_stem(key) for key in keys]
    assert len(set(stems)) == len(keys)
    assert all(0 < len(stem) < 120 and "/" not in stem and stem.isascii() and stem != ".." for stem in stems)
