"""Initial weights that let heads look at the same place of the input frame, and let the prompt be heard.

The edit frame is, nearly everywhere, the input frame again. From the usual random weights a small transformer first has
to find out that tokens of equal row and column belong together, and on two CPU cores that alone takes longer than all
the rest of its training. Rotary positions allow to write it down: queries and keys that are one constant vector have
logits that depend on the distance of the two tokens only, and are largest at distance 0.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from chronoedit.model.attention import Attention
from chronoedit.model.dit import ChronoEditBlock, ChronoEditDiT

POSITION = 5.0  # of the constant parts of queries and keys, where the rest is about 0.6
MARK = 4.0  # of the residual channel that marks the input frame's tokens
SHARPNESS = 1.4  # of the norms of queries and keys: eight times more weight at distance 0 than one token away
GATE = 0.5
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
