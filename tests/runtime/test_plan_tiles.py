"""Tiles of the autoencoder in the plan: room counted from the code, fewer bytes, chosen before an edit is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan

from chronoedit.model.tiling import Tiling, decode_tiles, encode_tiles
from chronoedit.runtime import plan_activations as act
from chronoedit.runtime.plan import choose, choose_tiles, make_plan, nearest
from chronoedit.runtime.plan_facts import AutoencoderShape, published_facts
from chronoedit.runtime.plan_stages import Case, Machine, Work

from .test_edit_plan import peak_of

GB = 10**9
FULL = published_facts()
PLAIN = Case(
    facts=FULL,
    work=Work(height=720, width=1280, steps=50),
    machine=Machine(kind="cuda", device_bytes=80 * GB, host_bytes=128 * GB),
)
EMBEDDED: dict[str, Any] = {
    "base_dim": 16,
    "dim_mult": (1, 2, 2),
    "num_res_blocks": 1,
    "temperal_downsample": (True, True),
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
}


@pytest.mark.parametrize(
    ("config", "chunks", "side"), [({}, 2, 128), ({"base_dim": 16}, 3, 128), (EMBEDDED, 2, 128), (EMBEDDED, 8, 192)]
)
def test_the_room_of_tiles_is_that_of_the_code(config: dict[str, Any], chunks: int, side: int) -> None:
    height, width, shape = 384, 256, AutoencoderShape(**config)
    frames, tiling = 1 + (chunks - 1) * 4, Tiling(side_px=side)
    video = 4 * 3 * frames * height * width
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}
    encoded = peak_of(
        lambda: AutoencoderKLWan(**lists),
        lambda model: encode_tiles(model, torch.zeros(1, 3, frames, height, width), tiling),
    )
    decoded = peak_of(
        lambda: AutoencoderKLWan(**lists),
        lambda model: decode_tiles(model, torch.zeros(1, 16, chunks, height // 8, width // 8), tiling),
    )
    tiles = act.Tiles.of(shape, height, width, side)
    encoding, decoding = (list(steps(shape, height, width, tiles)) for steps in (act.encoder_steps, act.decoder_steps))
    assert act.autoencoder_bytes(encoding, chunks, on_cpu=False) + video == pytest.approx(encoded, rel=0.1)
    assert act.autoencoder_bytes(decoding, chunks, on_cpu=False) + video == pytest.approx(decoded, rel=0.1)


@pytest.mark.parametrize("side", [None, 128])
def test_the_room_of_bf16_is_half(side: int | None) -> None:
    height, width, shape = 256, 256, AutoencoderShape(base_dim=16)

    def make() -> AutoencoderKLWan:
        torch.set_default_dtype(torch.bfloat16)  # a fake module cannot be cast
        try:
            return AutoencoderKLWan(base_dim=16)
        finally:
            torch.set_default_dtype(torch.float32)

    def run(model: AutoencoderKLWan) -> object:
        latents = torch.zeros(1, 16, 2, height // 8, width // 8, dtype=torch.bfloat16)
        return model.decode(latents) if side is None else decode_tiles(model, latents, Tiling(side_px=side))

    tiles = None if side is None else act.Tiles.of(shape, height, width, side)
    steps = list(act.decoder_steps(shape, height, width, tiles))
    planned = act.autoencoder_bytes(steps, 2, on_cpu=False, number_bytes=2) + 2 * 3 * 5 * height * width
    assert planned == pytest.approx(peak_of(make, run), rel=0.1)


def test_tiles_are_those_of_the_model() -> None:
    for height, width, side in ((720, 1280, 256), (720, 1280, 512), (64, 96, 512), (48, 80, 16)):
        parts = Tiling(side_px=side).tiles(height // 8, width // 8, 8)
        tiles = act.Tiles.of(FULL.autoencoder, height, width, side)
        assert tiles.count == len(parts)
        assert tiles.height == max(part.rows.stop - part.rows.start for part in parts)
        assert tiles.width == max(part.columns.stop - part.columns.start for part in parts)


def test_room_and_work_of_the_published_autoencoder() -> None:
    found = {}
    for side in (None, 512, 256):
        tiles = None if side is None else act.Tiles.of(FULL.autoencoder, 720, 1280, side)
        steps = list(act.decoder_steps(FULL.autoencoder, 720, 1280, tiles))
        found[side] = act.autoencoder_bytes(steps, 2, on_cpu=False), act.autoencoder_flops(steps, 2, tiles)
    (whole, flops), (large, more), (small, most) = found.values()
    assert (whole / GB, large / GB, small / GB) == pytest.approx((17.2, 3.0, 1.3), rel=0.02)
    assert (more / flops, most / flops) == pytest.approx((1.14, 1.29), rel=0.02)


def test_tiles_come_before_parts_that_take_turns() -> None:
    encoding = make_plan(PLAIN).peak("device")
    assert encoding.name == "encode the picture"
    assert choose(PLAIN).case.tile_px is None  # it fits as it is
    free = encoding.bytes("device") - 5 * GB
    less = replace(PLAIN, machine=replace(PLAIN.machine, device_bytes=free))
    chosen = choose(less)
    assert chosen.fits and chosen.case.layout == "together" and chosen.case.tile_px == 512
    assert nearest(make_plan(less))[0][0] == "the autoencoder in tiles (--vae-tiling 512)"


def test_a_layout_that_is_named_gets_tiles_too() -> None:
    turns = replace(PLAIN, layout="stream", machine=replace(PLAIN.machine, device_bytes=9 * GB))
    assert not make_plan(turns).fits
    chosen = choose_tiles(turns)
    assert chosen.case.layout == "stream" and chosen.case.tile_px is not None
    assert chosen.device_bytes < make_plan(turns).device_bytes
    small = replace(turns, work=replace(turns.work, height=256, width=256))
    assert choose_tiles(small).case.tile_px is None
    kept = replace(turns, tile_px=128)
    assert choose_tiles(kept).case.tile_px == 128
