"""An untrained transformer looks at its own place in the input frame, and hears its prompt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chronoedit.model.attention import Attention
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.model.rope import default_frame_positions, rotary_table, rotate
from chronoedit.training.initialisation import copy_input_frame, hush_padding, look_at_input_frame

HEADS, HEAD_DIM, SIDE = 4, 48, 8
MASK = range(16, 20)


def fresh() -> ChronoEditDiT:
    torch.manual_seed(0)
    return ChronoEditDiT(
        num_attention_heads=HEADS, attention_head_dim=HEAD_DIM, in_channels=36, out_channels=16, text_dim=24,
        freq_dim=32, ffn_dim=64, num_layers=3,
    ).eval()  # fmt: skip


def self_attention(transformer: ChronoEditDiT, block: int, frames: int) -> Tensor:
    """Attention weights `n s s` of a block, on the embedded noise and mask of `frames` latent frames."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 36, frames, 2 * SIDE, 2 * SIDE, generator=generator)
    latents[:, MASK] = 0
    latents[:, MASK, 0] = 1
    with torch.no_grad():
        tokens = transformer.patch_embedding(latents).flatten(2).transpose(1, 2)
        normed = transformer.blocks[block].norm1(tokens)
        attention: Attention = transformer.blocks[block].attn1
        rotary = rotary_table(default_frame_positions(frames, 8), SIDE, SIDE, HEAD_DIM)
        query = rotate(attention._split(attention.norm_q(attention.to_q(normed))), rotary)
        key = rotate(attention.text_kv(normed).key, rotary)
        return torch.einsum("snh,knh->nsk", query[0], key[0]).div(HEAD_DIM**0.5).softmax(-1)


@pytest.mark.parametrize("frames", [2, 8])
def test_heads_look_at_their_own_place_in_the_input_frame(frames: int) -> None:
    transformer = fresh()
    before = self_attention(transformer, 0, frames)
    look_at_input_frame(transformer, mask=MASK, layers=2, heads=2)
    weights = self_attention(transformer, 0, frames)
    edit = torch.arange((frames - 1) * SIDE**2, frames * SIDE**2)
    place = torch.arange(SIDE**2)
    aimed = weights[:2, edit]
    assert (aimed.argmax(-1) == place).float().mean() > 0.9
    assert aimed[:, place, place].mean() > 10 * before[:2, edit][:, place, place].mean()
    assert aimed[..., : SIDE**2].sum(-1).mean() > 1.5 / frames  # the input frame, more than its share


def test_other_heads_and_blocks_stay() -> None:
    transformer, untouched = fresh(), fresh()
    look_at_input_frame(transformer, mask=MASK, layers=2, heads=2)
    last, same = transformer.blocks[2].attn1, untouched.blocks[2].attn1
    assert torch.equal(last.to_q.weight, same.to_q.weight)
    rows = slice(2 * HEAD_DIM, None)
    assert torch.equal(transformer.blocks[0].attn1.to_q.weight[rows], untouched.blocks[0].attn1.to_q.weight[rows])


@pytest.mark.parametrize(("layers", "heads"), [(4, 1), (1, 5)])
def test_more_than_there_are_is_refused(layers: int, heads: int) -> None:
    with pytest.raises(ValueError, match="there are 3 and 4"):
        look_at_input_frame(fresh(), mask=MASK, layers=layers, heads=heads)


def velocity_error(transformer: ChronoEditDiT) -> float:
    """Of an untrained transformer's edit frame at sigma 1, where edit and input frame are the same."""
    generator = torch.Generator().manual_seed(2)
    clean = torch.randn(2, 16, 1, 2 * SIDE, 2 * SIDE, generator=generator).expand(-1, -1, 2, -1, -1)
    noise = torch.randn(2, 16, 2, 2 * SIDE, 2 * SIDE, generator=generator)
    condition = torch.zeros(2, 20, 2, 2 * SIDE, 2 * SIDE)
    condition[:, :, 0] = torch.cat((torch.ones(2, 4, 2 * SIDE, 2 * SIDE), clean[:, :, 0]), dim=1)
    with torch.no_grad():
        inputs, text = torch.cat((noise, condition), dim=1), torch.zeros(2, 4, 24)
        velocity = transformer(inputs, torch.tensor([1000, 1000]), text).sample
    return float((velocity - (noise - clean))[:, :, 1].square().mean())


def test_the_untrained_velocity_copies_the_input_frame() -> None:
    transformer = fresh()
    look_at_input_frame(transformer, mask=MASK, layers=2, heads=2)
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    assert velocity_error(transformer) > 1.9  # of noise and picture, both of variance 1
    copy_input_frame(transformer, z_dim=16, heads=2)
    assert velocity_error(transformer) < 0.7


def test_too_few_heads_to_copy_with_are_refused() -> None:
    with pytest.raises(ValueError, match="take more heads"):
        copy_input_frame(fresh(), z_dim=16, heads=1)


def heard(transformer: ChronoEditDiT) -> float:
    """The share of cross-attention that ten words get in a window of 160, over all blocks and heads."""
    torch.manual_seed(1)
    tokens, text = torch.randn(1, 30, HEADS * HEAD_DIM), torch.zeros(1, 160, 24)
    text[:, :10] = torch.randn(1, 10, 24)
    shares = []
    with torch.no_grad():
        prompt = transformer.condition_embedder.prompt(text, None, None)
        for block in transformer.blocks:
            attention: Attention = block.attn2
            query = attention._split(attention.norm_q(attention.to_q(tokens)))
            weights = torch.einsum("bsnh,bknh->bnsk", query, attention.text_kv(prompt.text).key)
            shares.append(weights.div(HEAD_DIM**0.5).softmax(-1)[..., :10].sum(-1).mean())
    return float(torch.stack(shares).mean())


def test_padding_does_not_drown_the_prompt() -> None:
    transformer = fresh()
    assert heard(transformer) < 0.15
    hush_padding(transformer)
    assert heard(transformer) > 0.5
