"""Tiles give the numbers of whole frames: every kind of autoencoder, tiles of any size, one process or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from diffusers import AutoencoderKLWan

from chronoedit.model import autoencoder as ae
from chronoedit.model import tiling
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.model.condition import encode_pair
from chronoedit.model.tiling import Span, Tiling, Window, decode_tiles, encode_tiles, sharing_side

from ..processes import run_by_two, save

EMBEDDED = {
    "dim_mult": [1, 2, 2],
    "temperal_downsample": [True, True],
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "published": {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2},
    "embedded": EMBEDDED,
    "four-fold": {"dim_mult": [1, 2, 2], "temperal_downsample": [True, True], "scale_factor_spatial": 4},
    "shortcuts": {
        "dim_mult": [1, 2, 2, 2],
        "is_residual": True,
        "decoder_base_dim": 16,
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
        "scale_factor_spatial": 16,
    },
}
HEIGHT, WIDTH = 7, 9  # latent cells


def random_autoencoder(name: str) -> AutoencoderKLWan:
    torch.manual_seed(0)
    sizes = {"base_dim": 8, "z_dim": 4, "num_res_blocks": 1, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    return AutoencoderKLWan(**{**sizes, **CONFIGS[name]}).requires_grad_(False)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> AutoencoderKLWan:
    return random_autoencoder(request.param)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("cells", [2, 5, 6])
def test_decoded_tiles_are_the_whole_picture(model: AutoencoderKLWan, cells: int) -> None:
    latents = noise(1, 4, 3, HEIGHT, WIDTH)
    tiles = decode_tiles(model, latents, Tiling(side_px=cells * model.config.scale_factor_spatial))
    torch.testing.assert_close(tiles.clamp(-1, 1), model.decode(latents).sample, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cells", [2, 5, 6])
def test_encoded_tiles_are_the_whole_video(model: AutoencoderKLWan, cells: int) -> None:
    side = model.config.scale_factor_spatial
    video = noise(1, 3, 9, HEIGHT * side, WIDTH * side)
    posterior = model.encode(video).latent_dist
    moments = encode_tiles(model, video, Tiling(side_px=cells * side))
    torch.testing.assert_close(moments, posterior.parameters, atol=1e-5, rtol=0)


def test_one_that_resizes_nothing() -> None:
    sizes = {"dim_mult": [1], "temperal_downsample": [], "scale_factor_spatial": 1, "scale_factor_temporal": 1}
    model, latents = AutoencoderKLWan(base_dim=8, z_dim=4, **sizes).requires_grad_(False), noise(1, 4, 3, 5, 7)
    tiles = decode_tiles(model, latents, Tiling(side_px=2))
    torch.testing.assert_close(tiles.clamp(-1, 1), model.decode(latents).sample, atol=1e-5, rtol=0)


def test_a_batch_and_a_single_frame(model: AutoencoderKLWan) -> None:
    side = model.config.scale_factor_spatial
    latents = noise(2, 4, 1, HEIGHT, WIDTH)
    pictures = decode_tiles(model, latents, Tiling(side_px=4 * side))
    torch.testing.assert_close(pictures.clamp(-1, 1), model.decode(latents).sample, atol=1e-5, rtol=0)
    moments = encode_tiles(model, pictures, Tiling(side_px=4 * side))
    torch.testing.assert_close(moments, model.encode(pictures).latent_dist.parameters, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["published", "embedded", "shortcuts"])
def test_the_margins_are_all_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cell less around each tile of a convolution, borders show: the comparison above would see a seam."""
    model, side = random_autoencoder(name), CONFIGS[name].get("scale_factor_spatial", 8)
    sees = tiling._sees
    monkeypatch.setattr(tiling, "_sees", lambda cells: sees(cells - 1))
    latents = noise(1, 4, 2, HEIGHT, WIDTH)
    tiles = decode_tiles(model, latents, Tiling(side_px=5 * side))
    assert (tiles.clamp(-1, 1) - model.decode(latents).sample).abs().max() > 1e-4
    video = noise(1, 3, 5, HEIGHT * side, WIDTH * side)
    moments = encode_tiles(model, video, Tiling(side_px=5 * side))
    assert (moments - model.encode(video).latent_dist.parameters).abs().max() > 1e-4


@pytest.fixture(scope="module")
def embedded() -> AutoencoderKLWan:
    return open_checkpoint("tiny", device="cpu").autoencoder.requires_grad_(False)


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """1 3 H W in [-1, 1]."""
    data = pytest.importorskip("skimage.data")
    return torch.from_numpy(data.astronaut()[:192, 96:320].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_a_photo_shows_no_seam(embedded: AutoencoderKLWan, photo: torch.Tensor) -> None:
    """Across the borders of tiles pixels change as they do in the whole picture: to a thousandth of a grey level."""
    latents = encode_pair(embedded, photo, photo)
    whole = ae.decode(embedded, latents)[0, :, -1]  # 3 H W
    tiles = ae.decode(embedded, latents, tiling=Tiling(side_px=64))[0, :, -1]
    blended = library_tiles(embedded, latents)
    for axis, borders in ((1, (64, 128)), (2, (56, 112, 168))):
        steps = [picture.diff(dim=axis).abs() * 127.5 for picture in (whole, tiles, blended)]
        at = torch.tensor(borders) - 1
        ours, theirs = (float((each - steps[0]).index_select(axis, at).abs().max()) for each in steps[1:])
        assert ours < 1e-3 and theirs > 1
    torch.testing.assert_close(tiles, whole, atol=1e-5, rtol=0)


def library_tiles(model: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """The same picture by the library's own tiles, 3 H W."""
    model.enable_tiling(64, 64, 48, 48)
    try:
        return model.decode(ae.denormalise(model, latents)).sample[0, :, -1]
    finally:
        model.disable_tiling()


def test_the_doors_take_tiles(embedded: AutoencoderKLWan, photo: torch.Tensor) -> None:
    tiles, video = Tiling(side_px=48), torch.stack([photo[..., :96, :80]] * 5, dim=2)
    latents = ae.encode(embedded, video)
    torch.testing.assert_close(ae.encode(embedded, video, tiling=tiles), latents, atol=1e-4, rtol=1e-5)
    three = torch.cat([latents, noise(*latents.shape)], dim=2)
    whole = ae.decode(embedded, three, frames=(0, -1))
    torch.testing.assert_close(ae.decode(embedded, three, frames=(0, -1), tiling=tiles), whole, atol=1e-5, rtol=0)
    assert float(ae.decode(embedded, 9 * three, tiling=tiles).abs().max()) == 1  # clamped


def test_tiles_are_equal_parts_that_cover_a_picture() -> None:
    for height, width, side in ((90, 160, 256), (9, 11, 16), (5, 7, 8), (3, 3, 800)):
        tiles = Tiling(side_px=side).tiles(height, width, 8)
        covered = np.zeros((height, width), int)
        for tile in tiles:
            tile.of(covered)[:] += 1
        assert (covered == 1).all()
        sizes = {tile.rows.stop - tile.rows.start for tile in tiles}
        assert max(sizes) * 8 <= max(side, 8) and max(sizes) - min(sizes) <= 1
    assert Tiling(side_px=800).tiles(3, 4, 8) == [Window(Span(0, 3), Span(0, 4))]


@pytest.mark.parametrize(
    ("size", "count", "tiles"),
    [
        ((720, 1280), 1, 1),
        ((720, 1280), 2, 2),
        ((720, 1280), 3, 6),
        ((720, 1280), 4, 4),
        ((720, 1280), 8, 8),
        ((48, 80), 2, 2),
        ((8, 8), 5, 1),
    ],
)
def test_every_process_has_a_share(size: tuple[int, int], count: int, tiles: int) -> None:
    side = sharing_side(*size, count, 8)
    shares = [
        Tiling(side_px=side, rank=rank, count=count).tiles(size[0] // 8, size[1] // 8, 8) for rank in range(count)
    ]
    assert sum(map(len, shares)) == len({tile for share in shares for tile in share}) == tiles
    assert len({len(share) for share in shares}) == 1 or tiles < count


def test_tiles_that_cannot_be() -> None:
    model = random_autoencoder("embedded")
    with pytest.raises(ValueError, match="tiles of 100 px are not a multiple of 8; use 96 or 104"):
        decode_tiles(model, noise(1, 4, 1, 4, 4), Tiling(side_px=100))
    with pytest.raises(ValueError, match="tiles of 0 px"):
        Tiling(side_px=0)
    with pytest.raises(ValueError, match="process 2 of 2"):
        Tiling(side_px=8, rank=2, count=2)
    attentive = AutoencoderKLWan(base_dim=8, z_dim=4, attn_scales=[0.5], num_res_blocks=1)
    with pytest.raises(ValueError, match="WanAttentionBlock sees whole frames .*attn_scales"):
        encode_tiles(attentive, noise(1, 3, 1, 32, 32), Tiling(side_px=16))


def test_bf16_tiles_are_the_bf16_picture() -> None:
    model = random_autoencoder("embedded")
    ae.set_decode_dtype(model, torch.bfloat16)
    latents = noise(1, 4, 2, HEIGHT, WIDTH)
    whole, tiles = ae.decode(model, latents), ae.decode(model, latents, tiling=Tiling(side_px=40))
    assert whole.dtype == tiles.dtype == torch.float32
    torch.testing.assert_close(tiles, whole, atol=2e-2, rtol=0)  # the last bits of bf16


def by_two(path: Path) -> None:
    found = {}
    for name in ("embedded", "shortcuts"):
        model, (latents, video) = random_autoencoder(name), inputs(name)
        share = Tiling(side_px=5 * model.config.scale_factor_spatial, rank=dist.get_rank(), count=2)
        found[name] = decode_tiles(model, latents, share), encode_tiles(model, video, share)
        single = Tiling(side_px=1600, rank=dist.get_rank(), count=2)  # the second has none
        for shared, again in zip(
            found[name], (decode_tiles(model, latents, single), encode_tiles(model, video, single)), strict=True
        ):
            torch.testing.assert_close(again, shared, atol=1e-5, rtol=0)
    save(found, path)


def inputs(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    side = CONFIGS[name].get("scale_factor_spatial", 8)
    return noise(1, 4, 2, HEIGHT, WIDTH), noise(1, 3, 5, HEIGHT * side, WIDTH * side)


def test_two_processes_share_the_tiles(tmp_path: Path) -> None:
    run_by_two(by_two, tmp_path / "found.pt")
    for name, (decoded, encoded) in torch.load(tmp_path / "found.pt").items():
        model, (latents, video) = random_autoencoder(name), inputs(name)
        torch.testing.assert_close(decoded.clamp(-1, 1), model.decode(latents).sample, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoded, model.encode(video).latent_dist.parameters, atol=1e-5, rtol=0)
