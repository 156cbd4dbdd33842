"""The head that tells where the edit is: which tokens it reads, and that threads do not mix."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from chronoedit.training.grounding import GroundingHead, MiddleOf, grounding_loss
from chronoedit.training.trainer import TransformerModel

TINY = TransformerModel(num_heads=1, head_dim=48, num_layers=3, ffn_dim=64, input_layers=1, input_heads=1)


def test_the_head_reads_the_first_and_the_last_frame() -> None:
    torch.manual_seed(0)
    head, hidden = GroundingHead(6), torch.randn(2, 3 * 4 * 5, 6)
    between = hidden.clone()
    between[:, 20:40] = 0
    logits = head(hidden, (3, 4, 5))
    assert logits.shape == (2, 2, 8, 10)
    assert torch.equal(logits, head(between, (3, 4, 5)))


def test_the_cells_of_a_token_lie_where_its_patch_does() -> None:
    torch.manual_seed(0)
    head, hidden = GroundingHead(6), torch.zeros(1, 2 * 2 * 3, 6)
    nothing = head(hidden, (2, 2, 3)).detach()
    hidden[0, 6 + 4] = torch.arange(6.0)  # of the last frame, second row, second column
    changed = head(hidden, (2, 2, 3)).detach() != nothing
    expected = torch.zeros(1, 2, 4, 6, dtype=torch.bool)
    expected[0, 1, 2:4, 2:4] = True
    assert torch.equal(changed, expected)


def test_each_thread_takes_its_own() -> None:
    torch.manual_seed(0)
    transformer = TINY.build(2, 8)
    middle = MiddleOf(transformer)

    def taken(value: float) -> Tensor:
        video = torch.full((1, 8, 2, 4, 4), value)
        transformer(video, torch.zeros(1), torch.ones(1, 3, 8), return_dict=False)
        return middle.take().detach()

    alone = [taken(value) for value in (0.0, 1.0)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(taken, (0.0, 1.0)))
    assert not torch.equal(*alone)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    with torch.no_grad():
        transformer(torch.zeros(1, 8, 2, 4, 4), torch.zeros(1), torch.ones(1, 3, 8), return_dict=False)
    assert not hasattr(middle._kept, "hidden")


def test_the_loss_is_least_where_the_logits_say_the_shares() -> None:
    shares = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 1, 2, 2).expand(3, 2, 2, 2)
    right = torch.logit(shares.clamp(1e-4, 1 - 1e-4))
    assert grounding_loss(right, shares).shape == (3,)
    assert (grounding_loss(right, shares) < grounding_loss(right + 0.3, shares)).all()
    assert (grounding_loss(right, shares) < grounding_loss(-right, shares)).all()
