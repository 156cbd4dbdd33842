"""Tiny transformers with random weights, alone or beside diffusers' class with the same ones, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from chronoedit.model.dit import ChronoEditDiT

IMAGE_DIM = 24


@dataclass(frozen=True, kw_only=True)
class DitInputs:
    """Latents with their prompts: `text` has zeros past `lengths`."""

    hidden_states: Tensor
    timestep: Tensor
    text: Tensor
    lengths: Tensor
    image_embeds: Tensor | None

    @property
    def plain(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The positional arguments that diffusers' class takes too."""
        return self.hidden_states, self.timestep, self.text, self.image_embeds


@pytest.fixture(scope="session")
def dit_inputs() -> Callable[..., DitInputs]:
    # 512 text tokens by default: the reference tells image from text tokens by this number.
    def make(*, frames: int = 2, image: bool = False, text_len: int = 512) -> DitInputs:
        rng = torch.Generator().manual_seed(frames)
        lengths = torch.tensor([7, 20])
        text = torch.randn(2, text_len, 32, generator=rng)
        return DitInputs(
            hidden_states=torch.randn(2, 36, frames, 4, 6, generator=rng),
            timestep=torch.tensor([999, 314]),
            text=text * (torch.arange(text_len) < lengths[:, None])[..., None],
            lengths=lengths,
            image_embeds=torch.randn(2, 257, IMAGE_DIM, generator=rng) if image else None,
        )

    return make


@pytest.fixture(scope="session")
def dit_config() -> Callable[..., dict[str, Any]]:
    def make(*, image: bool = False, head_dim: int = 48, **others: Any) -> dict[str, Any]:
        config: dict[str, Any] = {
            "num_attention_heads": 2,
            "attention_head_dim": head_dim,
            "in_channels": 36,
            "text_dim": 32,
            "freq_dim": 32,
            "ffn_dim": 64,
            "num_layers": 2,
            "image_dim": IMAGE_DIM if image else None,
            "added_kv_proj_dim": 2 * head_dim if image else None,
        }
        return config | others

    return make


@pytest.fixture(scope="session")
def random_dit(dit_config: Callable[..., dict[str, Any]]) -> Callable[..., ChronoEditDiT]:
    """A new transformer with the given configuration; every weight is random, norms and biases too."""

    def make(**config: Any) -> ChronoEditDiT:
        torch.manual_seed(1)
        dit = ChronoEditDiT(**dit_config(**config)).eval()
        with torch.no_grad():
            for parameter in dit.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return dit

    return make


@pytest.fixture(scope="session")
def assert_close() -> Callable[[Tensor, Tensor, float], None]:
    """Largest difference at most `bound` · max(1, max|reference|)."""

    def check(ours: Tensor, reference: Tensor, bound: float) -> None:
        assert ours.shape == reference.shape
        difference = (ours.double() - reference.double()).abs().max().item()
        scale = max(1.0, reference.abs().max().item())
        assert difference <= bound * scale, f"differs by {difference:.3g}, more than {bound:g} of {scale:.3g}"

    return check
