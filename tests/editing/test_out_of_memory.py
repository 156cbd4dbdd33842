"""Memory that runs out in each stage: named, tried again once with less, and the editor still edits."""

from __future__ import annotations

import errno
import gc
import logging
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chronoedit.editing import decode, denoise, encode
from chronoedit.editing.editor import Editor
from chronoedit.editing.out_of_memory import is_out_of_memory, lower_layout
from chronoedit.editing.placement import Placement
from chronoedit.errors import OutOfMemory
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.runtime.quantize import quantize

from .conftest import make_request

STAGES: dict[str, tuple[Any, str]] = {
    "load": (Editor, "_load"),
    "encode": (encode.InputEncoder, "encode"),
    "denoise": (denoise.Run, "denoise"),
    "trajectory": (denoise.Run, "trajectory"),
    "decode": (decode.autoencoder, "decode"),
}
ERRORS = {
    "a GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    "Python": MemoryError,
    "the CPU": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\nat line 7"),
    "Windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 5 bytes."),
    "cuBLAS": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "the system": lambda: OSError(errno.ENOMEM, "Cannot allocate memory"),
}


@pytest.fixture
def editor(random_checkpoint: Path) -> Editor:
    """An editor of its own model: when memory runs out it is arranged otherwise."""
    return Editor(open_checkpoint(random_checkpoint, device="cpu"), device="cpu")


REQUEST = {"reasoning": True, "return_trajectory": True, "num_reasoning_steps": 1}


class Failing:
    """A function that works, takes memory and then fails, the first `times` that it is called."""

    def __init__(self, function: Callable, make_error: Callable[[], BaseException], times: int) -> None:
        self.function = function
        self.make_error = make_error
        self.left = times
        self.taken: list[weakref.ref] = []

    def __get__(self, instance: Any, owner: type) -> Callable:
        return lambda *args, **kwargs: self(instance, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        made = self.function(*args, **kwargs)
        if not self.left:
            return made
        self.left -= 1
        tensor = torch.zeros(7)
        self.taken.append(weakref.ref(tensor))
        raise self.make_error()


def fail(monkeypatch: pytest.MonkeyPatch, stage: str, kind: str = "a GPU", times: int = 1) -> Failing:
    place, name = STAGES[stage]
    failing = Failing(getattr(place, name), ERRORS[kind], times)
    monkeypatch.setattr(place, name, failing)
    return failing


@pytest.mark.parametrize("kind", ERRORS)
def test_each_allocator_is_understood(kind: str) -> None:
    assert is_out_of_memory(ERRORS[kind]())
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(OSError(2, "no such file"))


@pytest.mark.parametrize("stage", STAGES)
def test_it_is_done_again_with_less_and_gives_the_same(
    editor: Editor, stage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    request = make_request(**REQUEST)
    truth = editor.edit(request)
    editor.cache.clear()
    failing = fail(monkeypatch, stage, kind="the CPU")
    with caplog.at_level(logging.WARNING):
        result = editor.edit(request)
    assert not failing.left and editor.placement.layout == "disk"
    told = [record.getMessage() for record in caplog.records if record.name.startswith("chronoedit")]
    assert told == [
        f"out of memory ({stage}: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried); it is done "
        "again, so that weights stay in their files, and come to the device block by block"
    ]
    assert result.latents is not None and truth.latents is not None
    assert torch.allclose(result.latents, truth.latents, atol=1e-5)
    assert np.abs(np.asarray(result.image, int) - np.asarray(truth.image, int)).max() <= 1


@pytest.mark.parametrize("stage", STAGES)
def test_a_second_time_it_ends_and_the_editor_still_edits(
    editor: Editor, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = fail(monkeypatch, stage, times=2)
    with pytest.raises(OutOfMemory, match=f"out of memory in the stage '{stage}' \\(CUDA out of memory. Tried") as info:
        editor.edit(make_request(**REQUEST))
    assert info.value.stage == stage and not failing.left
    gc.collect()
    assert [reference() for reference in failing.taken] == [None, None]  # though the error is still held
    result = editor.edit(make_request(**REQUEST))
    assert result.latents is not None and torch.isfinite(result.latents).all()


def test_a_seed_that_is_drawn_stays_when_it_is_done_again(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int | None] = []
    edit_all = Editor._edit_all

    def noted(self: Editor, requests: Any, *arguments: Any) -> Any:
        seeds.append(requests[0].seed)
        return edit_all(self, requests, *arguments)

    monkeypatch.setattr(Editor, "_edit_all", noted)
    fail(monkeypatch, "decode")
    result = editor.edit(make_request(seed=None))
    assert seeds == [result.request.seed] * 2


def test_what_is_half_made_smaller_is_loaded_anew(random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchao")
    results = []
    for times in (0, 1):
        failing = Failing(quantize, MemoryError, times)
        monkeypatch.setattr("chronoedit.editing.editor.quantize", failing.__call__)
        model = Editor(open_checkpoint(random_checkpoint, device="cpu"), device="cpu", precision="int8")
        results.append(model.edit(make_request()))
        assert not failing.left
    assert results[0].latents is not None and results[1].latents is not None
    assert torch.allclose(results[0].latents, results[1].latents, atol=1e-5)


def test_several_at_once_do_not_step_down_by_themselves(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, "denoise")
    with pytest.raises(OutOfMemory, match="in the stage 'denoise'"):
        editor.edit_batch([make_request(), make_request(seed=8)])
    assert editor.placement.layout == "together"


@pytest.mark.parametrize(
    ("device", "layout", "lower"),
    [
        ("cuda", "together", "turns"),
        ("cuda", "turns", "stream"),
        ("cuda", "disk", None),
        ("cpu", "together", "disk"),
        ("mps", "turns", "disk"),
        ("cpu", "disk", None),
    ],
)
def test_what_takes_less(device: str, layout: str, lower: str | None) -> None:
    assert lower_layout(Placement(device=torch.device(device), layout=layout)) == lower


def test_the_error_comes_back_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(OutOfMemory("decode", "no more")))
    assert (error.stage, error.detail) == ("decode", "no more") and "stage 'decode'" in str(error)
