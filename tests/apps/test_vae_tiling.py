"""`--vae-tiling`: read, refused, planned, chosen by `--memory auto`, and brought to the editor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from chronoedit.apps import memory
from chronoedit.apps.main import main
from chronoedit.apps.options import ModelFlags
from chronoedit.apps.session import opened
from chronoedit.request import EditRequest
from chronoedit.runtime.plan_facts import PUBLISHED
from chronoedit.runtime.plan_stages import Machine

GB = 10**9
PLAN = ["plan", "--model-path", PUBLISHED, "--ram", "128GB", "--json"]


@pytest.mark.parametrize("side", [0, 8, 100])
def test_tiles_are_a_multiple_of_tokens(side: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, "--vram", "80GB", "--vae-tiling", str(side)]) == 2
    assert f"--vae-tiling {side}: tiles are a multiple of 16 px" in capsys.readouterr().err


def test_the_editor_gets_them() -> None:
    with opened(ModelFlags(device="cpu", vae_tiling=32)) as editor:
        assert editor.coding.tile_px == 32
    with opened(ModelFlags(device="cpu")) as editor:
        assert editor.coding.tile_px is None


def figures(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, int]:
    capsys.readouterr()
    main([*PLAN, *flags])
    return json.loads(capsys.readouterr().out)


def test_the_plan_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    whole, tiles = figures(capsys, "--vram", "80GB"), figures(capsys, "--vram", "80GB", "--vae-tiling", "256")
    assert (whole["tile_px"], tiles["tile_px"]) == (None, 256)
    assert figures(capsys, "--vram", "56GB")["tile_px"] == 512
    main([*PLAN[:-1], "--vram", "56GB", "--tflops", "400"])
    assert "fits, where all parts stay on the device, and the autoencoder works in tiles of 512 px" in (
        capsys.readouterr().out
    )


def test_an_edit_takes_them_where_only_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (1280, 720)).save(tmp_path / "photo.png")
    request = EditRequest(image=tmp_path / "photo.png", prompt="x")
    flags, machine = ModelFlags(model_path=PUBLISHED), Machine(kind="cuda", device_bytes=56 * GB, host_bytes=128 * GB)
    monkeypatch.setattr(memory, "machine_for", lambda device: machine)
    fitted = memory.fitted(flags, "auto", request)
    assert fitted.vae_tiling == 512 and fitted.layout == "together"
    assert "tiles of 512 px" in capsys.readouterr().err
    machine = replace(machine, device_bytes=80 * GB)
    assert memory.fitted(flags, "auto", request).vae_tiling is None
    assert memory.fitted(replace(flags, vae_tiling=256), "auto", request).vae_tiling == 256
    assert memory.fitted(flags, "off", request) == flags
