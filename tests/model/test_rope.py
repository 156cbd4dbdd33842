from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_chronoedit import ChronoEditRotaryPosEmbed

from chronoedit.model.rope import default_frame_positions, rotary_table, rotate


def test_two_frames_stand_at_the_ends_of_the_video() -> None:
    assert default_frame_positions(2, 8).tolist() == [0, 7]
    assert default_frame_positions(2, 5).tolist() == [0, 4]
    assert default_frame_positions(1, 8).tolist() == [0]
    assert default_frame_positions(3, 8).tolist() == [0, 1, 2]
    assert default_frame_positions(8, 8).tolist() == list(range(8))


@pytest.mark.parametrize("head_dim", [16, 40, 48, 64, 96, 128])
@pytest.mark.parametrize("frames", [2, 3, 8])
def test_table_is_the_references(head_dim: int, frames: int) -> None:
    reference = ChronoEditRotaryPosEmbed(head_dim, (1, 2, 2), 1024, temporal_skip_len=8)
    cos, sin = reference(torch.empty(1, 1, frames, 10, 14))
    table = rotary_table(default_frame_positions(frames, 8), 5, 7, head_dim)
    assert table.shape == (1, frames * 5 * 7, 1, head_dim // 2, 2)
    assert torch.equal(table[..., 0], cos[..., 0::2])
    assert torch.equal(table[..., 1], sin[..., 1::2])


def test_dropping_frames_leaves_the_angles_of_the_others() -> None:
    whole = rotary_table(default_frame_positions(8, 8), 2, 3, 48).unflatten(1, (8, 6))
    pruned = rotary_table(default_frame_positions(2, 8), 2, 3, 48).unflatten(1, (2, 6))
    assert torch.equal(whole[:, [0, -1]], pruned)


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    query, key = torch.randn(2, 1, 12, 2, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    here = rotary_table(torch.tensor([0, 3]), 2, 3, 48)
    later = rotary_table(torch.tensor([11, 14]), 2, 3, 48)
    assert torch.allclose(rotate(query, here).norm(dim=-1), query.norm(dim=-1), atol=1e-5)

    def logits(table: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bsnh,bknh->bnsk", rotate(query, table), rotate(key, table))

    assert torch.allclose(logits(here), logits(later), atol=1e-4)
    assert not torch.allclose(logits(here), torch.einsum("bsnh,bknh->bnsk", query, key), atol=1e-1)


def test_rotation_is_computed_in_fp32() -> None:
    x = torch.randn(1, 12, 2, 48, generator=torch.Generator().manual_seed(0)).bfloat16()
    table = rotary_table(torch.tensor([0, 7]), 2, 3, 48)
    assert rotate(x, table).dtype == torch.bfloat16
    assert torch.equal(rotate(x, table), rotate(x.float(), table).bfloat16())


def test_fractional_positions_lie_between_whole_ones() -> None:
    cos, sin = rotary_table(torch.tensor([0.0, 0.5, 1.0]), 1, 1, 48)[0, :, 0, 0].unbind(-1)
    assert torch.allclose(torch.atan2(sin, cos), torch.tensor([0.0, 0.5, 1.0]))
