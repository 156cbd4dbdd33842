"""One edit by two processes is the edit of one: guidance branches at once, tokens shared, the inputs encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from chronoedit.editing import encode
from chronoedit.editing.editor import Editor
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.request import EditRequest
from chronoedit.runtime.edit_processes import Layout, best_layout, connect

from ..processes import run_by_two, save
from .conftest import make_photo, make_request

MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "unguided": {"guidance_scale": 1.0},
    "guided at first": {"guidance_until": 0.5},
    "odd": {"image": make_photo(width=80, height=48), "height": 48, "width": 80},  # 15 tokens a latent frame
    "reasoning": {"reasoning": True, "return_trajectory": True, "height": 48, "width": 80},
    "variants": {"num_variants": 2},
    "cached": {"step_cache": "first-block:0.25", "num_inference_steps": 12, "guidance_until": 0.7, "num_variants": 2},
}
LAYOUTS = (Layout(branches=2), Layout(context=2))


@pytest.mark.parametrize(
    ("count", "heads", "guided", "layout"),
    [
        (1, 40, True, Layout()),
        (2, 40, True, Layout(branches=2)),
        (2, 40, False, Layout(context=2)),
        (8, 40, True, Layout(branches=2, context=4)),
        (8, 40, False, Layout(context=8)),
        (7, 40, True, Layout(context=5)),
        (5, 40, True, Layout(context=5)),
        (8, 2, True, Layout(branches=2, context=2)),
    ],
)
def test_the_layout_that_uses_most(count: int, heads: int, guided: bool, layout: Layout) -> None:
    assert best_layout(count, heads, guided=guided) == layout


def by_two(checkpoint: Path, path: Path) -> None:
    texts: list[str] = []
    real = encode.encoders.encode_prompt
    encode.encoders.encode_prompt = lambda components, prompts: texts.extend(prompts) or real(components, prompts)
    found: dict[Any, Any] = {}
    for layout in LAYOUTS:
        processes = connect(layout)
        editor = Editor(open_checkpoint(checkpoint, device="cpu"), device="cpu", processes=processes)
        for name, changes in MODES.items():
            found[layout, name] = pictured(editor, make_request(**changes))
        drawn = editor.edit(EditRequest(image=make_photo(), prompt="add a hat", num_inference_steps=1))
        seeds: list[Any] = [None, None]
        dist.all_gather_object(seeds, drawn.request.seed)
        assert seeds[0] == seeds[1] is not None
    assert bool(texts) == (dist.get_rank() == 0)  # the other one receives
    with pytest.raises(ValueError, match="2 processes for 2 branches of 2; start 4"):
        connect(Layout(branches=2, context=2))
    save(found, path)


def pictured(editor: Editor, request: EditRequest) -> dict[str, Any]:
    result = editor.edit(request)
    found = {"latents": result.latents, "trajectory": result.trajectory, "passes": result.passes}
    return {**found, "image": np.asarray(result.image, int)}


def test_two_processes_edit_as_one(random_checkpoint: Path, tmp_path: Path) -> None:
    run_by_two(by_two, random_checkpoint, tmp_path / "found.pt")
    found = torch.load(tmp_path / "found.pt", weights_only=False)
    alone = Editor(open_checkpoint(random_checkpoint, device="cpu"), device="cpu")
    for name, changes in MODES.items():
        truth = pictured(alone, make_request(**changes))
        for layout in LAYOUTS:
            latents = found[layout, name]["latents"]
            assert found[layout, name]["passes"] == truth["passes"]
            assert (truth["passes"].computed < truth["passes"].total) == (name == "cached")
            difference = float((latents - truth["latents"]).abs().max() / truth["latents"].abs().max().clamp(min=1))
            assert difference < 1e-5, (layout, name, difference)
            assert abs(found[layout, name]["image"] - truth["image"]).max() <= 1  # each process decodes some tiles
            frames = found[layout, name]["trajectory"]
            assert (frames is None) == (truth["trajectory"] is None)
            if frames is not None:
                assert abs(frames.astype(int) - truth["trajectory"]).max() <= 1
