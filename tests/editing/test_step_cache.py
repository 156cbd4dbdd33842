"""Edits with a step cache: nothing reused is nothing changed, where a past ends, and what is counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from chronoedit.editing import denoise
from chronoedit.editing.editor import Editor
from chronoedit.model.checkpoint import Components
from chronoedit.request import EditRequest, EditResult, Passes

from .conftest import make_photo, make_request

STEPS = 12
CURVE = ((1.0, 1.0), (0.01, 1.2))
CACHES = ("first-block", "mag")
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "unguided": {"guidance_scale": 1.0},
    "guided at first": {"guidance_until": 0.5},
    "reasoning": {"reasoning": True, "return_trajectory": True},
    "variants": {"num_variants": 2},
}


def request(**changes: object) -> EditRequest:
    return make_request(**{"num_inference_steps": STEPS, **changes})


@pytest.fixture
def measured(components: Components, monkeypatch: pytest.MonkeyPatch) -> Editor:
    """An editor of the random model with the magnitudes that the cache "mag" needs."""
    monkeypatch.setattr(components, "settings", replace(components.settings, mag_ratios=CURVE))
    return Editor(components, device="cpu")


@pytest.fixture
def whole(components: Components) -> Iterator[list[tuple[int, int]]]:
    """Rows and latent frames of each pass that went beyond the first block, in order."""
    found: list[tuple[int, int]] = []
    tokens_a_frame = 16

    def note(block: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        rows, tokens, _ = arguments[0].shape
        found.append((rows, tokens // tokens_a_frame))

    hook = components.transformer.blocks[1].register_forward_pre_hook(note)
    yield found
    hook.remove()


def same(a: EditResult, b: EditResult) -> bool:
    assert a.latents is not None and b.latents is not None
    shown = [None if result.trajectory is None else result.trajectory.tobytes() for result in (a, b)]
    return torch.equal(a.latents, b.latents) and np.array_equal(a.video, b.video) and shown[0] == shown[1]


def largest(a: EditResult, b: EditResult) -> float:
    assert a.latents is not None and b.latents is not None
    return float((a.latents - b.latents).abs().max())


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("mode", MODES)
def test_threshold_0_is_the_edit_without_bit_for_bit(
    measured: Editor, monkeypatch: pytest.MonkeyPatch, mode: str, cache: str, apart: bool
) -> None:
    if apart:
        monkeypatch.setattr(denoise, "MAX_TOKENS_BATCHED", 0)
    without = measured.edit(request(**MODES[mode]))
    none_reused = measured.edit(request(step_cache=f"{cache}:0", **MODES[mode]))
    assert same(none_reused, without)
    assert none_reused.passes == without.passes == Passes(*[without.passes.total] * 2)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("mode", "passes"), [("plain", 24), ("unguided", 12), ("guided at first", 18), ("reasoning", 44), ("variants", 48)]
)
def test_passes_are_counted_of_all_rows_branches_and_stages(editor: Editor, mode: str, passes: int) -> None:
    """Reasoning: 2 steps of 12 before the drop, 10 after it, and 10 of the trajectory, two branches each."""
    assert editor.edit(request(**MODES[mode])).passes == Passes(passes, passes)


@pytest.mark.parametrize("cache", ["first-block:0.2", "mag:0.05"])
def test_a_cached_edit_is_close_repeatable_and_leaves_nothing_behind(measured: Editor, cache: str) -> None:
    before = measured.edit(request())
    cached = measured.edit(request(step_cache=cache))
    assert cached.passes is not None and 0 < cached.passes.computed < cached.passes.total == 24
    assert 0 < largest(cached, before) < 0.2 * float(before.latents.abs().max())  # type: ignore[union-attr]
    assert cached.request.step_cache == cache
    assert same(measured.edit(request(step_cache=cache)), cached)
    assert same(measured.edit(request()), before)


def reuse_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass may reuse, so that what is computed is what a stage or a branch begins and the schedule ends with."""
    monkeypatch.setattr(
        "chronoedit.runtime.stepcache.FirstBlock.judge", lambda rule, facts, added, *_: (yes(added), facts)
    )


def yes(added: torch.Tensor) -> torch.Tensor:
    return torch.ones(added.shape[0], dtype=torch.bool)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("plain", [(2, 2), (2, 2)]),
        ("guided at first", [(2, 2), (1, 2), (1, 2)]),
        ("reasoning", [(2, 8), (2, 2), (2, 2), (2, 8), (2, 8)]),
        ("variants", [(4, 2), (4, 2)]),
    ],
)
def test_a_past_ends_at_the_drop_at_the_trajectory_and_with_guidance(
    editor: Editor,
    whole: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    expected: list[tuple[int, int]],
) -> None:
    reuse_all(monkeypatch)
    for _ in range(2):  # and the next edit begins without a past
        whole.clear()
        result = editor.edit(request(step_cache="first-block", **MODES[mode]))
        assert whole == expected
        assert result.passes is not None and result.passes.computed == sum(rows for rows, _ in expected)


def test_edits_of_a_batch_decide_for_themselves(editor: Editor, whole: list[tuple[int, int]]) -> None:
    """Each result, and the number of its passes, is that of the edit alone; and some passes have a part of the rows."""
    requests = [
        request(step_cache="first-block:0.2", image=make_photo(k), prompt=f"add {k} hats", seed=k) for k in range(3)
    ]
    together = editor.edit_batch(requests)
    assert len({rows for rows, _ in whole}) > 1
    for one, result in zip(requests, together, strict=True):
        alone = editor.edit(one)
        assert alone.passes == result.passes
        assert largest(alone, result) < 1e-4


@pytest.mark.parametrize("mode", ["plain", "reasoning"])
def test_branches_decide_alike_in_one_pass_and_in_two(
    editor: Editor, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    changes = {"step_cache": "first-block:0.2", "negative_prompt": "a blue cat", **MODES[mode]}
    together = editor.edit(request(**changes))
    monkeypatch.setattr(denoise, "MAX_TOKENS_BATCHED", 0)
    apart = editor.edit(request(**changes))
    assert apart.passes == together.passes and largest(apart, together) < 1e-4


def test_mag_needs_the_models_magnitudes_and_few_steps_are_refused(editor: Editor) -> None:
    with pytest.raises(ValueError, match="'random-0' has none"):
        editor.edit(request(step_cache="mag"))
    with pytest.raises(ValueError, match="with 4 steps, which differ too much"):  # the model's own number
        editor.edit(request(step_cache="first-block", num_inference_steps=None))


def test_a_cache_without_its_threshold_is_completed(measured: Editor) -> None:
    for cache in CACHES:
        completed = measured.edit(request(step_cache=cache)).request.step_cache
        assert completed is not None and completed.startswith(f"{cache}:0.")
