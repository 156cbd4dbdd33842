"""A transformer whose tokens two processes share computes what one does, and its gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from chronoedit.model.dit import ChronoEditDiT
from chronoedit.runtime.context_parallel import share_tokens
from chronoedit.runtime.processes import Processes, arrange

from ..processes import run_by_two, save

TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 48,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 96,
    "num_layers": 3,
}


def transformer(**changes: Any) -> ChronoEditDiT:
    torch.manual_seed(0)
    return ChronoEditDiT(**{**TRANSFORMER, **changes}).train()


def velocity_and_gradients(model: ChronoEditDiT, frames: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 36, frames, 6, 10, generator=generator)  # 15 tokens a frame
    text = torch.randn(2, 7, 32, generator=generator)
    velocity = model(latents, torch.tensor([500.0, 200.0]), text, return_dict=False)[0]
    velocity.square().mean().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return {**found, "velocity": velocity.detach()}


def shared(path: Path) -> None:
    processes = arrange("cpu", context=2)
    assert (processes.data_count, processes.data_rank) == (1, 0) and processes.mesh is not None
    assert processes.any(processes.is_first, False) == (True, False)
    assert processes.gather(processes.rank) == [0, 1]
    assert processes.mean_figures({"b": float(processes.rank), "a": 2.0}) == {"a": 2.0, "b": 0.5}
    found = {}
    for checkpointing in (False, True):
        model = transformer()
        if checkpointing:
            model.enable_gradient_checkpointing()
        share_tokens(model, processes.mesh["context"].get_group())
        for frames in (2, 3):
            parts = velocity_and_gradients(model, frames)
            for name, tensor in parts.items():
                if name != "velocity":
                    dist.all_reduce(tensor)
            found[checkpointing, frames] = parts
    with pytest.raises(ValueError, match="3 heads cannot be shared out to 2 processes"):
        share_tokens(transformer(num_attention_heads=3), processes.mesh["context"].get_group())
    with pytest.raises(ValueError, match="context parallel over 3 of 2 processes"):
        arrange("cpu", context=3)
    save(found, path)


def test_shared_tokens_change_nothing(tmp_path: Path) -> None:
    run_by_two(shared, tmp_path / "found.pt")
    found = torch.load(tmp_path / "found.pt")
    for (_, frames), parts in found.items():
        truth = velocity_and_gradients(transformer(), frames)  # 3 frames: 45 tokens, 23 and 22 of them
        assert set(parts) == set(truth)
        for name, tensor in truth.items():
            torch.testing.assert_close(parts[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_process_alone() -> None:
    alone = Processes()
    assert alone.is_first and alone.any(True, False) == (True, False) and alone.gather("x") == ["x"]
    tensor = torch.ones(2)
    alone.mean([tensor])
    assert tensor.tolist() == [1, 1]
