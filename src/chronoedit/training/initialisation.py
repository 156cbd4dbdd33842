"""Initial weights that let heads look at the same place of the input frame, and let the prompt be heard.

The edit frame is, nearly everywhere, the input frame again. From the usual random weights a small transformer first has
to find out that tokens of equal row and column belong together, and on two CPU cores that alone takes longer than all
the rest of its training. Rotary positions allow to write it down: queries and keys that are one constant vector have
logits that depend on the distance of the two tokens only, and are largest at distance 0. Heads so aimed can also bring
the input frame's latents to where the edit frame's velocity is read: an edit that changes nothing needs no training.
"""

from __future__ import annotations

import itertools
import math
from typing import cast

import torch
from torch import nn

from chronoedit.model.attention import Attention
from chronoedit.model.dit import ChronoEditBlock, ChronoEditDiT

POSITION = 5.0  # of the constant parts of queries and keys, where the rest is about 0.6
MARK = 4.0  # of the residual channel that marks the input frame's tokens
SHARPNESS = 1.4  # of the norms of queries and keys: eight times more weight at distance 0 than one token away
SHARPNESS_OF_COPY = 2.2  # a hundred and more times
GATE = 0.5
SHOWN = 0.25  # of the condition's latents in the residual stream, of tokens that they belong to
BROUGHT = 3.0  # times that, in the tokens that they are brought to
OUT = 0.75  # of the noisy latents in the velocity, after a norm that enlarges them about so much
MASK_CHANNELS = 4
TURNED_AWAY = 0.8  # of the queries' bias, where the rest has a spread of about 0.6
PADDING_KEY = -0.01  # small beside the keys of words; its direction alone counts, as keys are normalised


@torch.no_grad()
def look_at_input_frame(transformer: ChronoEditDiT, *, mask: range, layers: int, heads: int) -> None:
    """Let the first `heads` heads of the first `layers` blocks attend to their own place in the input frame, in place.

    `mask` are the input channels that are 1 on the input frame and 0 elsewhere. All weights stay trainable.
    Raises ValueError for more layers or heads than there are.
    """
    config = transformer.config
    if layers > config.num_layers or heads > config.num_attention_heads:
        raise ValueError(
            f"{layers} layers and {heads} heads are to look at the input frame; "
            f"there are {config.num_layers} and {config.num_attention_heads}"
        )
    embedding = transformer.patch_embedding
    embedding.weight[0] = 0
    embedding.weight[0, list(mask)] = MARK / embedding.weight[0, list(mask)].numel()
    assert embedding.bias is not None
    embedding.bias[0] = 0
    for block in _blocks(transformer)[:layers]:
        for head in range(heads):
            _aim(block.attn1, head * config.attention_head_dim, config.attention_head_dim)
        for norm in (block.attn1.norm_q, block.attn1.norm_k):
            norm.weight.fill_(SHARPNESS)
        block.scale_shift_table[:, 2] = GATE


@torch.no_grad()
def copy_input_frame(transformer: ChronoEditDiT, *, z_dim: int, heads: int) -> None:
    """Let the untrained velocity be about noise less input frame, in place: nothing is edited yet.

    Noisy latents and those of the condition get residual channels of their own; the first `heads` heads of the first
    block, which `look_at_input_frame` has aimed, bring the latter from the input frame to the same place of the
    others; `proj_out` takes the difference. Exact at sigma 1 alone and but for the heads' sideways looks; all weights
    stay trainable. Raises ValueError where the channels do not fit.
    """
    config = transformer.config
    embedding, first = transformer.patch_embedding, _blocks(transformer)[0].attn1
    per_patch = math.prod(config.patch_size) * z_dim
    width, carried = embedding.weight.shape[0], heads * config.attention_head_dim
    if per_patch > carried or 1 + 2 * per_patch > width:
        raise ValueError(
            f"a patch has {per_patch} latents, {width} channels and {heads} heads of {config.attention_head_dim} do "
            f"not hold them twice; take more heads or a wider transformer"
        )
    noisy, shown = range(1, 1 + per_patch), range(1 + per_patch, 1 + 2 * per_patch)
    out = cast(nn.Linear, first.to_out[0])
    assert embedding.bias is not None
    offsets = itertools.product(*map(range, config.patch_size), range(z_dim))  # the order of `proj_out`
    for k, (t, row, column, channel) in enumerate(offsets):
        for place, source, gain in ((noisy[k], channel, 1.0), (shown[k], MASK_CHANNELS + z_dim + channel, SHOWN)):
            embedding.weight[place] = 0
            embedding.weight[place, source, t, row, column] = gain
            embedding.bias[place] = 0
        first.to_v.weight[k], first.to_v.bias[k], out.weight[:, k] = 0, 0, 0
        first.to_v.weight[k, shown[k]] = 1
        out.weight[shown[k], k] = BROUGHT / GATE
        transformer.proj_out.weight[k, noisy[k]] = OUT
        transformer.proj_out.weight[k, shown[k]] = -OUT / (SHOWN * BROUGHT)
    for norm in (first.norm_q, first.norm_k):
        norm.weight[:carried] = SHARPNESS_OF_COPY


@torch.no_grad()
def hush_padding(transformer: ChronoEditDiT) -> None:
    """Let the queries of cross-attention turn away from the key of padding, in place.

    A short prompt in a long window has a hundred and fifty padded tokens, all with the same key: by their number alone
    they take nine tenths of the attention, and a small model does not learn to read in an hour. Without biases on its
    way, padding (zeros) reaches `to_k` as zeros, so that its key is `to_k`'s bias, and a query that points the other
    way gives it a low logit; the keys of words are far larger than that bias and hardly moved by it.
    """
    text = transformer.condition_embedder.text_embedder
    for layer in (text.linear_1, text.linear_2):
        layer.bias.zero_()
    for block in _blocks(transformer):
        block.attn2.to_k.bias.fill_(PADDING_KEY)
        block.attn2.to_q.bias.fill_(TURNED_AWAY)


def _blocks(transformer: ChronoEditDiT) -> list[ChronoEditBlock]:
    return [cast(ChronoEditBlock, block) for block in transformer.blocks]


def _aim(attention: Attention, first: int, head_dim: int) -> None:
    space = 2 * (head_dim // 6)
    time = head_dim - 2 * space
    for axis in (time, time + space):  # rows, then columns: their two highest frequencies
        for channel in (first + axis, first + axis + 2):
            for projection in (attention.to_q, attention.to_k):
                _set_constant(projection, channel)
    slowest = first + time - 2  # hardly turns: the same at all times
    _set_constant(attention.to_q, slowest)
    attention.to_k.weight[slowest] = 0
    attention.to_k.weight[slowest, 0] = 1
    attention.to_k.bias[slowest] = 0


def _set_constant(projection: nn.Linear, channel: int) -> None:
    projection.weight[channel] = 0
    projection.bias[channel] = POSITION
