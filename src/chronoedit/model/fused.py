"""The pieces of a block between its matrix products and attention: each passes over the tokens and computes little.

Run as they are, they are several passes over memory; in compiled blocks each becomes one kernel (see `runtime.compile`,
a test counts them). There is one implementation: torch's compiler writes the kernels, for every device it knows. Norms
are given as modules, so that whatever acts on their weights from outside (offloading, casting) still does.

Shapes: b batch, s tokens, d model width, n heads, h channels of a head. Modulation is fp32.
"""

from __future__ import annotations

from torch import Tensor, nn

from chronoedit.model.rope import rotate


def modulated_norm(x: Tensor, norm: nn.Module, shift: Tensor, scale: Tensor) -> Tensor:
    """`x`, `b s d`, normalised, scaled and shifted in fp32 by `b 1 d` each; in x's dtype."""
    return (norm(x.float()) * (1 + scale) + shift).type_as(x)


def gated_residual(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """`x` and its update, `b s d` each, the update times `b 1 d`; summed in fp32, in x's dtype."""
    return (x + update * gate).type_as(x)  # the gate's fp32 brings the others to fp32, without copies of them


def normed_heads(x: Tensor, norm: nn.Module, heads: int, rotary: Tensor | None = None) -> Tensor:
    """Queries or keys, `b s d`, normalised, split into heads and turned by their tokens' angles: `b s n h`."""
    split = norm(x).unflatten(-1, (heads, -1))  # b s n h
    return split if rotary is None else rotate(split, rotary)
