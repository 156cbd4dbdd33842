"""`chronoedit plan`, and what an edit does with its plan before anything is loaded."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.apps import memory
from chronoedit.apps.main import main
from chronoedit.apps.options import ModelFlags
from chronoedit.request import EditRequest
from chronoedit.runtime.plan_facts import PUBLISHED, read_facts
from chronoedit.runtime.plan_stages import Machine

GB = 10**9
FULL = ("plan", "--model-path", PUBLISHED, "--ram", "64GB")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((720, 1280, 3), 90, np.uint8)).save(path)
    return path


def here(monkeypatch: pytest.MonkeyPatch, kind: str, device_gb: float, host_gb: float = 64) -> None:
    """Let this machine be another."""
    machine = Machine(kind=kind, device_bytes=round(device_gb * GB), host_bytes=round(host_gb * GB))  # type: ignore[arg-type]
    monkeypatch.setattr(memory, "machine_for", lambda _: machine)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[ModelFlags]:
    """The flags with which an edit would open its model, which it then does not."""
    found: list[ModelFlags] = []

    @contextmanager
    def open_none(flags: ModelFlags, processes: None = None) -> Iterator[None]:
        found.append(flags)
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("chronoedit.apps.commands.edit.opened", open_none)
    return found


def test_the_embedded_model_fits_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--enable-temporal-reasoning", "--tflops", "0.1"]) == 0
    out = capsys.readouterr().out
    for words in ("tiny in fp32 on c", "denoise, reasoning", "decode the reasoning", "the most at once", "in all"):
        assert words in out
    assert main(["plan", "--enable-temporal-reasoning", "--tflops", "0.1", "-o", "out.png"]) == 0
    assert "decode the reasoning" not in capsys.readouterr().out


def test_a_machine_that_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FULL, "--vram", "80GB"]) == 0
    out = capsys.readouterr().out
    assert "in bf16 on cuda: 1280x720 px, 50 guided steps" in out and "all parts stay" in out
    assert "with parts that take turns (--offload-model)" in out and "about" not in out
    assert main([*FULL, "--vram", "48GB", "--enable-temporal-reasoning"]) == 0
    assert "where parts take turns" in capsys.readouterr().out
    assert main([*FULL, "--vram", "80GB", "--offload-model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "turns"


def test_each_layout_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for name in ("auto", "off", "turns", "stream", "disk"):
        assert main([*FULL, "--vram", "80GB", "--memory", name, "--json"]) == 0
        found[name] = json.loads(capsys.readouterr().out)
    assert [each["layout"] for each in found.values()] == ["together", "together", "turns", "stream", "disk"]
    sizes = [found[name]["device_bytes"] for name in ("off", "turns", "stream")]
    assert sizes == sorted(sizes, reverse=True) and found["disk"]["host_bytes"] < 2 * GB < found["stream"]["host_bytes"]
    assert found["stream"]["stages"][-2]["copied_bytes"] > 10**12
    assert main([*FULL, "--vram", "24GB", "--memory", "turns"]) == 1  # that and no other
    assert "a transformer that comes block by block (--memory stream)" in capsys.readouterr().out
    assert main([*FULL, "--vram", "24GB", "--tflops", "400"]) == 0
    assert "the transformer block by block: 24.0 GB free" in capsys.readouterr().out


def test_what_does_not_fit_ends_with_1_and_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FULL, "--vram", "5GB", "--enable-temporal-reasoning"]) == 1
    assert "(--memory stream) and --height" in capsys.readouterr().out
    assert main([*FULL, "--vram", "24GB", "--precision", "int8"]) == 0
    assert "in int8 on cuda" in capsys.readouterr().out
    assert main([*FULL, "--vram", "1GB"]) == 1
    assert "Nothing that could be changed here makes it fit" in capsys.readouterr().out
    assert main([*FULL, "--vram", "31.5GB", "--enable-temporal-reasoning", "--memory", "turns"]) == 1
    assert main([*FULL, "--device", "cpu", "--variants", "2"]) == 1
    assert "of main memory in the stage" in capsys.readouterr().out
    tall = ["--height", "1920", "--width", "1920"]
    assert main(["plan", "--device", "cpu", "--ram", "300MB", "--tflops", "1", *tall]) == 1
    assert "It would fit with the autoencoder in tiles (--vae-tiling 256) and --height" in capsys.readouterr().out


def test_sizes_and_steps_are_those_of_an_edit(capsys: pytest.CaptureFixture[str], photo: Path) -> None:
    words = [*FULL, "--vram", "80GB", "--preset", "turbo", "-i", str(photo), "--height", "480", "--variants", "3"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "848x480 px, 3 variants, 8 unguided steps" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vram", "16"], "--vram '16' is no size; give a number and a unit, such as 16GB"),
        (["--vram", "16GB", "--ram", "lots"], "--ram 'lots' is no size"),
        (["--vram", "16GB", "--device", "cpu"], "--device cpu works in main memory; give --ram"),
        (["--tflops", "0"], "--tflops is 0.0; a number above 0"),
        (["--height", "721"], "height 721 is not a multiple of 16"),
        (["-i", "no-such.png"], "no-such.png"),
        (["-o", "out.txt"], "out.txt"),
        (["--device", "cuda:77"], "--device"),
    ],
)
def test_flags_that_cannot_be(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "count"), [("16GB", 16 * 10**9), ("16GiB", 2**34), ("16000MB", 16 * 10**9), ("1.5 tb", 15 * 10**11)]
)
def test_sizes_as_they_are_written(text: str, count: int) -> None:
    assert memory.bytes_of(text, "--ram") == count


def edit(photo: Path, *words: str) -> int:
    out = photo.with_name("out.png")
    return main(["edit", "-i", str(photo), "-p", "x", "-o", str(out), "--model-path", PUBLISHED, *words])


def test_an_edit_turns_the_offload_on(
    monkeypatch: pytest.MonkeyPatch, opened: list[ModelFlags], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for gpu, host, layout, words in (
        (48, 64, "turns", "parts take turns on the device:"),
        (24, 64, "stream", "the transformer block by block:"),
        (24, 16, "disk", "weights stay in their files"),
    ):
        here(monkeypatch, "cuda", gpu, host)
        assert edit(photo) == 130 and opened[-1].offload == layout
        (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
        assert words in note
        assert edit(photo, "--memory", layout) == 130 and opened[-1].offload == layout
        assert "note:" not in capsys.readouterr().err
        assert edit(photo, "--memory", "off") == 130 and opened[-1].offload is False
    here(monkeypatch, "cuda", 80)
    assert edit(photo) == 130 and opened[-1].offload == "together"
    assert edit(photo, "--offload-model") == 130 and opened[-1].offload == "turns"
    assert edit(photo, "--offload-model", "--memory", "off") == 130 and opened[-1].offload is True


def test_a_layout_is_no_flag(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit(photo, "--layout", "disk") == 2 and edit(photo, "--memory", "gpu") == 2
    assert main(["edit", "--help"]) == 0
    assert "--layout" not in capsys.readouterr().out


def test_an_edit_that_cannot_fit_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, opened: list[ModelFlags], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here(monkeypatch, "cuda", 5, 128)
    assert edit(photo, "--num-temporal-reasoning-steps", "10") == 1
    err = capsys.readouterr().err
    assert "5.0 GB are free" in err and "--memory off" in err and not opened
    chain = ["chain", "-i", str(photo), "-p", "x", "-o", str(photo.with_name("steps")), "--model-path", PUBLISHED]
    chain.append("--enable-temporal-reasoning")
    assert main(chain) == 1 and not opened
    assert main([*chain, "--memory", "off"]) == 130 and len(opened) == 1


def test_an_edit_that_is_close_is_tried(
    monkeypatch: pytest.MonkeyPatch, opened: list[ModelFlags], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here(monkeypatch, "cuda", 34)
    assert edit(photo, "--memory", "turns") == 130 and opened[-1].offload == "turns"
    assert "may fit" in capsys.readouterr().err


def test_a_model_of_which_nothing_is_known_is_not_refused(monkeypatch: pytest.MonkeyPatch, photo: Path) -> None:
    here(monkeypatch, "cuda", 1)
    flags = ModelFlags(model_path="nobody/no-such-model-of-ours")
    assert memory.fitted(flags, "auto", EditRequest(image=photo, prompt="x")) is flags
    assert memory.fitted(flags, "disk", EditRequest(image=photo, prompt="x")).offload == "disk"


def test_the_plan_of_a_small_edit_takes_no_time(photo: Path) -> None:
    request, seconds = EditRequest(image=photo, prompt="x"), []
    for _ in range(4):  # the first imports what the edit imports anyway
        began = time.process_time()
        memory.fitted(ModelFlags(), "auto", request)
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.05


def test_weights_that_a_lora_changes(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    names = {"a.lora_A.weight": (4, 8), "a.lora_B.weight": (16, 4), "b.lora_down.weight": (4, 8), "b.alpha": ()}
    save_file({name: torch.zeros(shape) for name, shape in names.items()}, tmp_path / "one.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    files = [tmp_path / "one.safetensors", tmp_path / "broken.safetensors"]
    assert memory.fused_parameters(files) == 16 * 8
    assert memory.fused_parameters(files, beside=True) == 16 * 4 + 4 * 8
    work = memory.work_of(
        EditRequest(image="x.png", prompt="x", negative_prompt="y"), (64, 64), read_facts("tiny"), files
    )
    assert work.fused_parameters == 128 and work.negative_keys is None and (work.height, work.width) == (128, 128)


def test_a_photo_that_is_shown_turned(tmp_path: Path) -> None:
    picture, exif = Image.new("RGB", (64, 32)), Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert memory.photo_size(tmp_path / "turned.jpg") == (32, 64)
