"""Compiled blocks: the eager result, one code for both stages of an edit, nothing compiled after the warm-up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import PIL.Image
import pytest
import torch
import torch._inductor.config
from diffusers.models.normalization import FP32LayerNorm
from safetensors.torch import save_file
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor.utils import run_and_get_code

from chronoedit.editing import editor as editing
from chronoedit.editing.editor import Editor
from chronoedit.editing.loading import load
from chronoedit.errors import ChronoEditError
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.model.fused import gated_residual, modulated_norm, normed_heads
from chronoedit.model.rope import default_frame_positions, rotary_table
from chronoedit.request import EditRequest, EditResult, Progress
from chronoedit.runtime.compile import (
    BLOCKS_WARMED,
    check_compile,
    compile_blocks,
    first_blocks,
    is_compiled,
    restore_blocks,
    warming,
)
from chronoedit.runtime.quantize import quantize

CPU = torch.device("cpu")
BOUND = 1e-5  # of max(1, max|reference|), fp32
BALL, LONG = "remove the red ball", "remove the red ball, and whatever else there may be on the table beside it"


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Editors trace and guard as ever, but leave out the generating of code, which is slow."""
    monkeypatch.setattr(editing, "compile_blocks", partial(compile_blocks, backend="eager"))


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def assert_close(ours: Tensor | None, reference: Tensor | None) -> None:
    assert ours is not None and reference is not None and ours.shape == reference.shape
    difference = float((ours - reference).abs().max())
    assert difference <= BOUND * max(1.0, float(reference.abs().max())), difference


@dataclass
class Told:
    """What an edit tells, and how many graphs there were at the end of the warm-up."""

    stages: list[str] = field(default_factory=list)
    warmed: int = -1

    def __call__(self, progress: Progress) -> None:
        if not self.stages or self.stages[-1] != progress.stage:
            self.stages.append(progress.stage)
        if progress.stage == "compile" and progress.done == progress.total:
            self.warmed = graphs()


def request(**changes: Any) -> EditRequest:
    fields = {
        "image": PIL.Image.linear_gradient("L").convert("RGB").resize((64, 64)),
        "prompt": BALL,
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "seed": 7,
        "return_latents": True,
    }
    return EditRequest(**{**fields, **changes})


REASONING = {"reasoning": True, "num_reasoning_steps": 1}


def edit(editor: Editor, **changes: Any) -> EditResult:
    """An edit, during whose steps nothing may be compiled."""
    told = Told()
    result = editor.edit(request(progress=told, **changes))
    assert told.stages[:4] == ["load", "encode", "compile", "denoise"]
    assert told.warmed == graphs(), "something was compiled after the warm-up"
    assert "compile" in result.timings_s
    return result


def test_generated_code_computes_the_edit(random_checkpoint: Path) -> None:
    """To 1e-5, with one code for both stages; the next edit compiles nothing at all."""
    plain, compiled = load(random_checkpoint, device="cpu"), load(random_checkpoint, device="cpu", compile=True)
    assert_close(edit(compiled, **REASONING).latents, plain.edit(request(**REASONING)).latents)
    assert graphs() == 1
    assert_close(
        edit(compiled, prompt=LONG, **REASONING).latents, plain.edit(request(prompt=LONG, **REASONING)).latents
    )
    assert graphs() == 1


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({**REASONING}, 1),
        ({**REASONING, "guidance_until": 0.5}, 2),
        ({**REASONING, "guidance_scale": 1.0, "num_variants": 2, "return_trajectory": True}, 2),
        ({"num_variants": 2, "num_inference_steps": 12, "step_cache": "first-block:0.9"}, 2),
        ({"height": 96, "width": 48}, 1),
        ({"prompt": " ".join(["word"] * 600)}, 1),
    ],
    ids=["reasoning", "guidance ends", "one trajectory of two", "rows apart", "another size", "nothing padded"],
)
def test_nothing_is_compiled_in_the_loop(
    traced: None, random_checkpoint: Path, changes: dict[str, Any], kinds: int
) -> None:
    """Whatever kinds of passes it has; then not for another prompt and size either."""
    plain, compiled = load(random_checkpoint, device="cpu"), load(random_checkpoint, device="cpu", compile=True)
    assert_close(edit(compiled, **changes).latents, plain.edit(request(**changes)).latents)
    assert graphs() <= kinds
    before = graphs()
    edit(compiled, **{**changes, "prompt": changes.get("prompt", LONG), "height": 80, "width": 80})
    assert graphs() == before


def test_steps_of_two_passes(traced: None, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where guidance takes its two passes one after the other, both are warmed."""
    monkeypatch.setattr("chronoedit.editing.denoise.MAX_TOKENS_BATCHED", 0)
    plain, compiled = load(random_checkpoint, device="cpu"), load(random_checkpoint, device="cpu", compile=True)
    assert_close(edit(compiled, **REASONING).latents, plain.edit(request(**REASONING)).latents)


def test_loras_come_and_go(traced: None, random_checkpoint: Path, tmp_path: Path) -> None:
    """Fused and taken out in compiled blocks, without compiling again."""
    generator = torch.Generator().manual_seed(1)
    lora = {
        "transformer.blocks.0.attn1.to_q.lora_A.weight": torch.randn(4, 96, generator=generator),
        "transformer.blocks.0.attn1.to_q.lora_B.weight": torch.randn(96, 4, generator=generator),
    }
    save_file(lora, tmp_path / "lora.safetensors")
    plain, compiled = load(random_checkpoint, device="cpu"), load(random_checkpoint, device="cpu", compile=True)
    before = edit(compiled).latents
    for each in (plain, compiled):
        each.load_loras([(tmp_path / "lora.safetensors", 1.0)])
    with_lora = edit(compiled).latents
    assert_close(with_lora, plain.edit(request()).latents)
    assert before is not None and with_lora is not None and (with_lora - before).abs().max() > 1e-3
    compiled.unload_loras()
    after = edit(compiled).latents
    assert after is not None and torch.equal(after, before)
    assert graphs() == 1


@pytest.mark.parametrize("way", ["turns", "stream", "disk"])
def test_blocks_that_come_and_go(traced: None, random_checkpoint: Path, way: str) -> None:
    plain, compiled = (load(random_checkpoint, device="cpu", compile=c, offload=way) for c in (False, True))
    for _ in range(2):
        assert_close(edit(compiled, **REASONING).latents, plain.edit(request(**REASONING)).latents)
    assert graphs() == 1


def test_blocks_stored_in_bf16(traced: None, random_checkpoint: Path) -> None:
    plain, compiled = (load(random_checkpoint, device="cpu", compile=c, precision="bf16") for c in (False, True))
    for _ in range(2):
        assert_close(edit(compiled, **REASONING).latents, plain.edit(request(**REASONING)).latents)


def test_what_cannot_be_compiled_is_refused_before_loading(tmp_path: Path) -> None:
    nowhere = tmp_path / "no model here"
    with pytest.raises(ValueError, match="stored in int8 are not compiled"):
        load(nowhere, device="cpu", compile=True, precision="int8")
    processes: Any = SimpleNamespace(layout=SimpleNamespace(context=2))
    with pytest.raises(ValueError, match="share an edit's tokens"):
        load(nowhere, device="cpu", compile=True, processes=processes)
    with pytest.raises(ValueError, match="'sage' cannot be part of compiled blocks; choose one of flash3, cudnn"):
        check_compile(CPU, "sage")
    with pytest.raises(ValueError, match="not compiled for mps"):
        check_compile(torch.device("mps"), "auto")
    missing = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})
    with missing, pytest.raises(ValueError, match=r"needs a C\+\+ compiler, and there is none; install g\+\+"):
        load(nowhere, device="cpu", compile=True)


def test_a_gpu_needs_triton_and_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install triton"):
        check_compile(torch.device("cuda"), "auto")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="install gcc or clang"):
        check_compile(torch.device("cuda"), "auto")


def tiny_dit() -> ChronoEditDiT:
    torch.manual_seed(0)
    config = {"num_attention_heads": 2, "attention_head_dim": 16, "text_dim": 8, "freq_dim": 8, "ffn_dim": 16}
    return ChronoEditDiT(**config, num_layers=3).eval().requires_grad_(False)


def test_quantised_weights_are_refused() -> None:
    pytest.importorskip("torchao")
    dit = tiny_dit()
    quantize(dit, "int8")
    with pytest.raises(ChronoEditError, match="weights are quantised"):
        compile_blocks(dit)


def test_what_torch_cannot_compile_is_told(
    random_checkpoint: Path, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = load(random_checkpoint, device="cpu", compile=True)
    block = compiled.components.transformer.blocks[0]
    feed_forward = block.ffn.forward

    def broken(x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return feed_forward(x)

    monkeypatch.setattr(block.ffn, "forward", broken)
    with pytest.raises(
        ChronoEditError, match="torch cannot compile the blocks of this model .* edit without compiling"
    ):
        compiled.edit(request())


def test_compiled_and_restored() -> None:
    """Twice is once; hooks stay outside; the blocks go back to what they were."""
    dit = tiny_dit()
    inputs = torch.randn(1, 16, 2, 4, 6), torch.tensor([500]), torch.randn(1, 5, 8)
    expected = dit(*inputs).sample
    compile_blocks(dit, backend="eager")
    forwards = [block.forward for block in dit.blocks]
    compile_blocks(dit, backend="eager")
    assert [block.forward for block in dit.blocks] == forwards and all(map(is_compiled, dit.blocks))
    seen: list[str] = []
    dit.blocks[1].register_forward_pre_hook(lambda *_: seen.append("before"))
    dit.blocks[1].register_forward_hook(lambda *_: seen.append("after"))
    with warming():
        assert_close(dit(*inputs).sample, expected)
    assert seen == ["before", "after"] and graphs() == 1
    restore_blocks(dit)
    assert not any(map(is_compiled, dit.blocks))
    assert torch.equal(dit(*inputs).sample, expected)


def test_the_first_blocks_are_the_same_modules() -> None:
    dit = tiny_dit()
    short = first_blocks(dit)
    assert len(short.blocks) == BLOCKS_WARMED and len(dit.blocks) == 3
    assert all(a is b for a, b in zip(short.blocks, dit.blocks, strict=False))
    assert short.proj_out is dit.proj_out and short.config == dit.config


def kernels(function: Callable[..., Tensor], arguments: Sequence[Any]) -> tuple[int, Tensor]:
    """How many kernels the compiler makes of a function, and what they compute."""
    compiled = torch.compile(function, fullgraph=True, dynamic=True)
    with torch.no_grad(), torch._inductor.config.patch(force_disable_caches=True):
        result, code = run_and_get_code(compiled, *arguments)
    return len(re.findall(r"^\s+cpp_fused\w*\(", "\n".join(code), re.MULTILINE)), result


def test_each_piece_is_one_kernel() -> None:
    """In bf16, whose casts are fused too; it computes what it does uncompiled, but for one rounding in between."""
    generator = torch.Generator().manual_seed(0)
    x, update = (torch.randn(2, 30, 96, generator=generator).bfloat16() for _ in range(2))
    shift, scale = (torch.randn(2, 1, 96, generator=generator) for _ in range(2))
    rotary = rotary_table(default_frame_positions(2, 8), 3, 5, 48)
    pieces: dict[Callable[..., Tensor], Sequence[Any]] = {
        modulated_norm: (x, FP32LayerNorm(96, 1e-6, elementwise_affine=False), shift, scale),
        gated_residual: (x, update, scale),
        normed_heads: (x, nn.RMSNorm(96, 1e-6, dtype=torch.bfloat16), 2, rotary),
    }
    for piece, arguments in pieces.items():
        count, result = kernels(piece, arguments)
        expected = piece(*arguments)
        assert count == 1, piece.__name__
        assert (result - expected).abs().max() <= 2**-7 * expected.abs().max(), piece.__name__
