"""A small transformer with an image branch and a LoRA whose factors all matter, its inputs, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from chronoedit.model.dit import ChronoEditDiT

TARGETS = r"blocks\..*(to_q|to_k|to_v|to_out\.0|ffn\.net\.0\.proj|ffn\.net\.2|add_k_proj)"


@pytest.fixture
def make_transformer(add_lora: Callable[[ChronoEditDiT], None]) -> Callable[..., ChronoEditDiT]:
    def make(dtype: torch.dtype = torch.float32, *, lora: bool = True) -> ChronoEditDiT:
        torch.manual_seed(0)
        dit = ChronoEditDiT(
            num_attention_heads=2, attention_head_dim=24, in_channels=36, out_channels=16, text_dim=32, freq_dim=32,
            ffn_dim=128, num_layers=3, image_dim=32, added_kv_proj_dim=48,
        )  # fmt: skip
        dit.to(dtype).requires_grad_(False)
        if lora:
            add_lora(dit)
        return dit

    return make


@pytest.fixture
def add_lora() -> Callable[[ChronoEditDiT], None]:
    from peft import LoraConfig

    def add(dit: ChronoEditDiT) -> None:
        dit.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS), "default")
        generator = torch.Generator().manual_seed(2)
        for parameter in dit.parameters():
            if parameter.requires_grad:
                parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)

    return add


@pytest.fixture
def inputs() -> Callable[..., dict[str, Tensor]]:
    def make(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        shapes = {
            "hidden_states": (1, 36, 2, 4, 4),
            "encoder_hidden_states": (1, 6, 32),
            "encoder_hidden_states_image": (1, 5, 32),
        }
        drawn = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
        return {**drawn, "timestep": torch.tensor([500.0])}

    return make


@pytest.fixture
def gradients(inputs: Callable[..., Any]) -> Callable[[ChronoEditDiT], tuple[Tensor, dict[str, Tensor]]]:
    """The velocity of a transformer, and the gradients of its trained weights by name."""

    def compute(dit: ChronoEditDiT) -> tuple[Tensor, dict[str, Tensor]]:
        dit.zero_grad()
        velocity = dit(**inputs(dit.dtype)).sample
        velocity.float().square().mean().backward()
        return velocity.detach(), {name: p.grad for name, p in dit.named_parameters() if p.grad is not None}

    return compute
