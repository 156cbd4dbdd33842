"""Whatever lies where, an edit is the same: the second too, with LoRAs, in fewer bits, and after one that failed."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from chronoedit.editing.editor import Editor
from chronoedit.editing.loading import EditorLoader, load
from chronoedit.errors import ChronoEditError
from chronoedit.model.checkpoint import write_random_checkpoint
from chronoedit.model.tensors import computed_in
from chronoedit.request import EditResult, Progress
from chronoedit.runtime.plan import LAYOUTS

from .conftest import make_photo, make_request
from .test_editor_loras import differ, write_lora

OTHERS = [name for name in LAYOUTS if name != "together"]
WEIGHTS = ("transformer", "autoencoder", "text_encoder", "image_encoder")
BF16 = torch.bfloat16


def edit(editor: Editor, **changes: Any) -> EditResult:
    return editor.edit(make_request(num_inference_steps=2, **changes))


@pytest.fixture(scope="module")
def expected(random_checkpoint: Path) -> dict[torch.dtype, EditResult]:
    """With all parts together, in the type of the files and in another."""
    return {dtype: edit(load(random_checkpoint, device="cpu", dtype=dtype)) for dtype in (torch.float32, BF16)}


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("layout", OTHERS)
def test_edits_are_the_same_and_the_second_encodes_nothing(
    random_checkpoint: Path, expected: dict[torch.dtype, EditResult], layout: str, dtype: torch.dtype
) -> None:
    editor = load(random_checkpoint, device="cpu", dtype=dtype, offload=layout)
    assert not differ(edit(editor), expected[dtype])
    encoders = {"text_encoder", "image_encoder"}
    for name in encoders:
        editor.components.release(name)
    again = edit(editor)
    assert not differ(again, expected[dtype]) and again.image.tobytes() == expected[dtype].image.tobytes()
    assert not encoders & set(editor.components.loaded)
    assert not differ(edit(editor, prompt="add a hat"), edit(editor, prompt="add a hat"))
    assert "text_encoder" in editor.components.loaded


@pytest.mark.parametrize("layout", OTHERS)
def test_loras_in_each_layout(random_checkpoint: Path, tmp_path: Path, layout: str) -> None:
    lora = write_lora(tmp_path / "a.safetensors", 1)
    plain = load(random_checkpoint, device="cpu", dtype=BF16)
    other = load(random_checkpoint, device="cpu", dtype=BF16, offload=layout)
    before = edit(plain)
    for scale in (1.0, 0.5):
        for editor in (plain, other):
            editor.load_loras([(lora, scale)])
        with_lora = edit(plain)
        assert differ(with_lora, before) and not differ(edit(other), with_lora)
    other.unload_loras()
    assert not differ(edit(other), before)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("layout", OTHERS)
def test_fewer_bits_in_each_layout(random_checkpoint: Path, tmp_path: Path, layout: str, precision: str) -> None:
    pytest.importorskip("torchao")
    loras = ((str(write_lora(tmp_path / "a.safetensors", 1)), 1.0),)
    made = [
        EditorLoader(
            path=str(random_checkpoint), device="cpu", dtype="bfloat16", offload=name, precision=precision, loras=loras
        )()
        for name in ("together", layout)
    ]
    first = edit(made[0])
    assert not differ(edit(made[1]), first) and not differ(edit(made[1]), first)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_an_edit_that_fails_leaves_the_editor_as_it_was(
    random_checkpoint: Path, expected: dict[torch.dtype, EditResult], layout: str
) -> None:
    editor = load(random_checkpoint, device="cpu", dtype=BF16, offload=layout)
    for stage in ("encode", "denoise", "decode"):

        def fail(progress: Progress, stage: str = stage) -> None:
            if progress.stage == stage:
                raise ChronoEditError("stop")

        with pytest.raises(ChronoEditError, match="stop"):
            edit(editor, progress=fail)
    to_q = editor.components.transformer.blocks[1].attn1.to_q
    hook = to_q.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ChronoEditError("in a block")))
    with pytest.raises(ChronoEditError, match="in a block"):
        edit(editor)
    hook.remove()
    assert not differ(edit(editor), expected[BF16])


def test_the_layout_of_a_live_editor_changes(
    random_checkpoint: Path, expected: dict[torch.dtype, EditResult], tmp_path: Path
) -> None:
    editor = load(random_checkpoint, device="cpu", dtype=BF16)
    for count, layout in enumerate(("turns", "disk", "stream", "together", "disk", "turns")):
        editor.use_layout(layout)
        assert editor.placement.layout == layout and not differ(edit(editor), expected[BF16]), layout
        edit(editor, prompt=f"for which the text encoder is needed again, {count}")
        stored = {name for name in WEIGHTS if any(computed_in(p) != p.dtype for p in _parameters(editor, name))}
        assert stored == ({"transformer", "text_encoder"} if layout == "disk" else set())
    editor.load_loras([(write_lora(tmp_path / "a.safetensors", 1), 1.0)])
    with_lora = edit(editor)
    for layout in ("disk", "stream"):  # what LoRAs have changed is no longer what the files hold
        editor.use_layout(layout)
        assert not differ(edit(editor), with_lora)
    with pytest.raises(ValueError, match="layout 'nowhere' is unknown"):
        editor.use_layout("nowhere")


def _parameters(editor: Editor, part: str) -> list[torch.Tensor]:
    return list(editor.components.loaded[part].parameters()) if part in editor.components.loaded else []


def test_the_layout_may_change_before_anything_is_loaded(
    random_checkpoint: Path, expected: dict[torch.dtype, EditResult]
) -> None:
    editor = load(random_checkpoint, device="cpu", dtype=BF16)
    editor.use_layout("disk")
    assert not editor.components.loaded and not differ(edit(editor), expected[BF16])


@pytest.mark.parametrize("offload", [False, True, "stream", "disk"])
def test_offload_by_a_word_or_yes_or_no(random_checkpoint: Path, offload: bool | str) -> None:
    loader = pickle.loads(pickle.dumps(EditorLoader(path=str(random_checkpoint), device="cpu", offload=offload)))
    assert loader().placement.layout == {False: "together", True: "turns"}.get(offload, offload)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="layout 'gpu' is unknown; choose from together, turns, stream, disk"):
        load(random_checkpoint, offload="gpu")


def test_a_picture_goes_through_the_autoencoder_alone(random_checkpoint: Path) -> None:
    pictures = [
        load(random_checkpoint, device="cpu", offload=layout).reconstruct(make_photo()).tobytes() for layout in LAYOUTS
    ]
    assert len(set(pictures)) == 1


MEASURED = """
import json, sys, threading, time
from pathlib import Path

def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

from chronoedit.editing.loading import load
from chronoedit.runtime.offload import BlockStream
editor = load(sys.argv[1], device="cpu", dtype="bfloat16", offload=sys.argv[2])
import diffusers.models.autoencoders.autoencoder_kl_wan, chronoedit.model.dit
editor.components.autoencoder
start, most, done = private(), 0, threading.Event()

def watch():
    global most
    while not done.is_set():
        most = max(most, private())
        time.sleep(0.0005)

watcher = threading.Thread(target=watch)
watcher.start()
with editor.placement.stage() as bring:
    bring(editor.components.transformer)
    within = private()
done.set()
watcher.join()
weights = sum(p.nbytes for p in editor.components.transformer.parameters())
print(json.dumps({"most": most - start, "within": within - start, "weights": weights}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose transformer has 26 million weights, in fp32, in 16 blocks."""
    from safetensors.torch import save_file

    from chronoedit.model.dit import ChronoEditDiT

    folder = write_random_checkpoint(tmp_path_factory.mktemp("large") / "checkpoint")
    path = folder / "transformer" / "config.json"
    config = json.loads(path.read_text())
    config |= {"num_attention_heads": 6, "attention_head_dim": 48, "ffn_dim": 1152, "num_layers": 16}
    config |= {"added_kv_proj_dim": 6 * 48}
    path.write_text(json.dumps(config))
    dit = ChronoEditDiT(**{key: value for key, value in config.items() if not key.startswith("_")})
    save_file(dict(dit.state_dict()), folder / "transformer" / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="private memory is measured as Linux tells it")
def test_weights_never_lie_in_main_memory_twice(large: Path) -> None:
    """Loaded in half the type of their file: one copy where they wait in memory, none where they stay in the file."""
    found = {}
    for layout in OTHERS:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", MEASURED, str(large), layout],
            capture_output=True, text=True, check=True,
            env={"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        found[layout] = json.loads(done.stdout.splitlines()[-1])
    whole = found["turns"]["weights"]
    assert found["disk"]["weights"] > 1.9 * whole  # as they are stored
    # What is there besides: two blocks on their way, two that compute, the ends, and the arrays of Python.
    assert 0.9 * whole < found["turns"]["most"] < 1.3 * whole
    assert 0.9 * whole < found["stream"]["most"] < 1.5 * whole
    assert found["disk"]["most"] < 0.6 * whole
