"""The plan of an edit: sizes counted from classes and files, room counted from the code, measured in a process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import chronoedit
from chronoedit.errors import CheckpointError
from chronoedit.model.checkpoint import open_checkpoint, write_random_checkpoint
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.runtime import plan_activations as act
from chronoedit.runtime.frozen import stored_bytes
from chronoedit.runtime.plan import LAYOUTS, Plan, choose, gains, least, make_plan, nearest
from chronoedit.runtime.plan_facts import (
    IMAGE_CONFIG,
    KEPT_IN_FP32,
    PUBLISHED,
    TEXT_CONFIG,
    TRANSFORMER_CONFIG,
    AutoencoderShape,
    Component,
    ModelFacts,
    NotDownloaded,
    Shape,
    published_facts,
    read_facts,
)
from chronoedit.runtime.plan_lines import gain_lines, refusal, size, table, verdict
from chronoedit.runtime.plan_stages import Case, Machine, Work

GB = 10**9
TINY = Path(chronoedit.__file__).parent / "weights" / "tiny"
FULL = published_facts()
THINKING = Work(height=720, width=1280, steps=50, reasoning_steps=10, trajectory=True)
H100 = Machine(kind="cuda", device_bytes=80 * GB, host_bytes=128 * GB)
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


def planned(device: float, host: float = 128, *, layout: str = "together", **changes: Any) -> Plan:
    machine = replace(H100, device_bytes=round(device * GB), host_bytes=round(host * GB))
    return make_plan(Case(facts=FULL, work=replace(THINKING, **changes), machine=machine, layout=layout))


def test_the_published_sizes_are_those_of_the_classes() -> None:
    from diffusers import AutoencoderKLWan
    from transformers.models.clip.modeling_clip import CLIPVisionConfig, CLIPVisionModel
    from transformers.models.umt5.modeling_umt5 import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        modules = {
            "transformer": ChronoEditDiT(**TRANSFORMER_CONFIG),
            "text_encoder": UMT5EncoderModel(UMT5Config(**TEXT_CONFIG)),
            "image_encoder": CLIPVisionModel(CLIPVisionConfig(**IMAGE_CONFIG)),
            "autoencoder": AutoencoderKLWan(),
        }
    counts = {name: sum(each.numel() for each in module.parameters()) for name, module in modules.items()}
    assert {name: component.parameters for name, component in FULL.components.items()} == counts
    assert FULL.image is not None and FULL.image.tokens == 257
    assert FULL.components["transformer"].bytes(2) == pytest.approx(32.8 * GB, rel=0.01)


def test_what_stays_in_fp32_is_what_the_class_keeps() -> None:
    assert frozenset(ChronoEditDiT._keep_in_fp32_modules or ()) == KEPT_IN_FP32


@pytest.mark.parametrize(("dtype", "weight_bytes"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_bytes_are_those_of_the_loaded_parts(random_checkpoint: Path, dtype: torch.dtype, weight_bytes: int) -> None:
    facts = read_facts(random_checkpoint)
    components = open_checkpoint(random_checkpoint, dtype=dtype, device="cpu")
    for name, component in facts.components.items():
        parameters = {id(each): each for each in getattr(components, name).parameters()}.values()
        assert component.bytes(weight_bytes) == sum(each.nbytes for each in parameters), name


def test_headers_of_shards_and_of_single_files(random_checkpoint: Path, tmp_path: Path) -> None:
    whole = read_facts(random_checkpoint)
    assert whole.components["transformer"].stored.keys() == {"F32"}
    shards = write_random_checkpoint(tmp_path / "shards", shards=3)
    assert read_facts(shards).components == whole.components
    file = random_checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    alone = read_facts(file, random_checkpoint)
    assert alone.components == whole.components and alone.transformer == whole.transformer
    published = read_facts(file, PUBLISHED)  # no download: the other parts are known
    assert published.components["text_encoder"] == FULL.components["text_encoder"]


def test_a_gguf_file_stays_as_it_is_stored(random_checkpoint: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from chronoedit.editing.loading import load
    from chronoedit.model.parts import open_transformer

    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(str(path), "wan")
    for name, tensor in open_transformer(random_checkpoint / "transformer").source.read(torch.device("cpu")):
        flat = tensor.numpy().reshape(tensor.shape[0], -1) if tensor.ndim > 4 else tensor.numpy()
        if tensor.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(tensor.shape))
        if flat.ndim == 2 and flat.shape[1] % 32 == 0 and tensor.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(name, gguf.quantize(flat, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, flat)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    facts = read_facts(path, random_checkpoint)
    component = facts.components["transformer"]
    assert component.parameters == read_facts(random_checkpoint).components["transformer"].parameters
    transformer = load(path, base=random_checkpoint, device="cpu").components.transformer
    assert component.bytes(4) == stored_bytes(transformer)
    assert component.as_stored_bytes == component.as_stored * 18 // 32 == component.mapped_bytes(4)
    case = Case(facts=facts, work=THINKING, machine=H100)
    (row,) = (row for row in make_plan(case).stages[0].rows if row.what == "transformer")
    assert row.bytes == component.bytes(2)
    assert not any("weights in" in words for words, _ in gains(make_plan(case)))


def test_names_that_are_known_and_those_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was asked for")

    monkeypatch.setattr("chronoedit.model.hub.download", refuse)
    assert read_facts(PUBLISHED) == FULL
    with pytest.raises(NotDownloaded, match="not in the hub's cache"):
        read_facts("nobody/no-such-model-of-ours")
    with pytest.raises(CheckpointError, match="no file or folder"):
        read_facts("there/is/no/such/folder")
    with safe_open(TINY / "transformer" / "diffusion_pytorch_model.safetensors", framework="pt") as file:
        held = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    assert read_facts("tiny").components["transformer"].parameters == held


class Peak(TorchDispatchMode):
    """The most bytes that lie in tensors made below it."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return tree_map_only(torch.Tensor, self.see, func(*args, **(kwargs or {})))

    def see(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage not in self.seen:
            self.seen.add(storage)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.gone, storage.nbytes())
        return tensor

    def gone(self, count: int) -> None:
        self.live -= count


def peak_of(make: Callable[[], Any], run: Callable[[Any], object]) -> int:
    """Bytes that a module works in, by tensors without memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.no_grad():
        module = make()
        with Peak() as peak:
            run(module)
        return peak.peak


def transformer(ffn_dim: int, dtype: torch.dtype) -> ChronoEditDiT:
    torch.set_default_dtype(dtype)  # a fake module cannot be cast
    try:
        return ChronoEditDiT(
            num_attention_heads=8, attention_head_dim=48, in_channels=36, out_channels=16, text_dim=64, freq_dim=256,
            ffn_dim=ffn_dim, num_layers=2,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ffn_dim", [384, 6 * 384])
def test_the_room_of_a_forward_is_that_of_the_code(ffn_dim: int, dtype: torch.dtype) -> None:
    def forward(height: int) -> Callable[[ChronoEditDiT], object]:
        def run(model: ChronoEditDiT) -> object:
            prompt = model.prompt_kv(torch.zeros(1, 4, 64, dtype=dtype))
            latents = torch.zeros(1, 36, 2, height, 64, dtype=dtype)
            return model(latents, torch.ones(1), None, prompt_kv=prompt, return_dict=False)[0]

        return run

    tall, low = (peak_of(lambda: transformer(ffn_dim, dtype), forward(height)) for height in (128, 64))
    shape = Shape(
        width=384, ffn_dim=ffn_dim, heads=8, layers=2, block_parameters=0, end_parameters=0, image_branch=False,
        token_cells=4,
    )  # fmt: skip
    assert act.block_bytes(shape, 2048, dtype.itemsize) == pytest.approx(tall - low, rel=0.1)


@pytest.mark.parametrize(("base_dim", "chunks"), [(96, 2), (16, 3)])
def test_the_room_of_the_autoencoder_is_that_of_the_code(base_dim: int, chunks: int) -> None:
    from diffusers import AutoencoderKLWan

    side, shape, frames = 128, AutoencoderShape(base_dim=base_dim), 1 + (chunks - 1) * 4
    video = 4 * 3 * frames * side**2
    encoded = peak_of(
        lambda: AutoencoderKLWan(base_dim=base_dim),
        lambda model: model.encode(torch.zeros(1, 3, frames, side, side)).latent_dist.mode(),
    )
    decoded = peak_of(
        lambda: AutoencoderKLWan(base_dim=base_dim),
        lambda model: model.decode(torch.zeros(1, 16, chunks, side // 8, side // 8)).sample,
    )
    encoding, decoding = (list(steps(shape, side, side)) for steps in (act.encoder_steps, act.decoder_steps))
    assert act.autoencoder_bytes(encoding, chunks, on_cpu=False) + video == pytest.approx(encoded, rel=0.05)
    assert act.autoencoder_bytes(decoding, chunks, on_cpu=False) + video == pytest.approx(decoded, rel=0.05)
    assert act.autoencoder_bytes(decoding, chunks, on_cpu=True) > act.autoencoder_bytes(decoding, chunks, on_cpu=False)


def test_flops_are_the_published_models() -> None:
    shape = FULL.transformer
    whole = [act.forward_flops(shape, tokens, 769) + act.prompt_flops(shape, 769) for tokens in (7200, 28800)]
    assert whole == pytest.approx([222e12, 1390e12], rel=0.02)
    encoder, decoder = (list(steps(FULL.autoencoder, 720, 1280)) for steps in (act.encoder_steps, act.decoder_steps))
    counted = [act.autoencoder_flops(encoder, 2), act.autoencoder_flops(encoder, 8), act.autoencoder_flops(decoder, 2)]
    assert counted == pytest.approx([25e12, 138e12, 42e12], rel=0.03)


def test_stages_of_an_edit_with_reasoning() -> None:
    plan = planned(80)
    assert [stage.name for stage in plan.stages] == [
        "load", "encode the prompts", "embed the picture", "encode the picture", "denoise, reasoning", "denoise",
        "denoise, to show it", "decode", "decode the reasoning",
    ]  # fmt: skip
    assert plan.fits and not plan.hopeless and 60 * GB < plan.device_bytes < 75 * GB
    plain = planned(80, reasoning_steps=0, trajectory=False, guided=False)
    assert [stage.name for stage in plain.stages][-2:] == ["denoise", "decode"]
    by_name = {stage.name: stage for stage in plan.stages}
    assert by_name["denoise"].flops == pytest.approx(40 * 2 * 219e12, rel=0.01)
    assert plain.stages[-2].flops == pytest.approx(50 * 219e12, rel=0.01)
    assert plain.seconds(1e15) < plan.seconds(1e15) == pytest.approx(plan.seconds(2e15) * 2)
    assert planned(80, reasoning_steps=50).stages[-2].name == "decode"  # never dropped: nothing else to show


def test_a_second_variant_and_a_lora_take_more() -> None:
    plan = planned(80)
    one, two = ({stage.name: stage.bytes("device") for stage in planned(80, variants=n).stages} for n in (1, 2))
    assert two["denoise"] > one["denoise"] and two["decode"] > one["decode"]
    assert planned(80, fused_parameters=GB).host_bytes == plan.host_bytes + 2 * GB


def test_parts_that_take_turns() -> None:
    plan = planned(48, layout="turns")
    assert plan.fits and 36 * GB < plan.device_bytes < 39 * GB and 44 * GB < plan.host_bytes < 50 * GB
    assert plan.stages[0].bytes("device") == 0
    assert planned(36, layout="turns", reasoning_steps=0, trajectory=False).fits
    assert planned(48, 32, layout="turns").hopeless  # too little main memory
    with pytest.raises(ValueError, match=f"choose from {', '.join(LAYOUTS)}"):
        planned(48, layout="nowhere")


def test_blocks_that_are_streamed() -> None:
    plan = planned(24, 64, layout="stream")
    by_name = {stage.name: stage for stage in plan.stages}
    assert plan.fits and plan.device_bytes < 20 * GB
    assert by_name["denoise"].bytes("device") < 4 * GB and by_name["denoise, reasoning"].bytes("device") < 7 * GB
    assert by_name["encode the prompts"].bytes("device") < 4 * GB  # the text encoder comes by blocks too
    rows = {row.what: row.bytes for row in by_name["denoise"].rows if row.where == "device"}
    shape = FULL.transformer
    block = rows["2 of its blocks"] / 2
    assert block == pytest.approx(2 * (shape.block_parameters - shape.prompt_parameters), rel=0.01)
    assert shape.prompt_parameters / shape.block_parameters == pytest.approx(0.26, abs=0.005)
    host = {row.what: row for row in by_name["denoise"].rows if row.where == "host"}
    assert host["transformer"].bytes == FULL.components["transformer"].bytes(2) and not host["transformer"].mapped
    small = make_plan(replace(plan.case, precision="int8"))
    assert small.host_bytes < plan.host_bytes - 14 * GB


def test_weights_that_stay_in_their_files() -> None:
    plan, beside = planned(24, 8, layout="disk"), planned(24, 8, layout="stream")
    assert plan.fits and plan.host_bytes < 2 * GB and beside.hopeless
    assert plan.device_bytes == beside.device_bytes
    (row,) = [row for row in plan.stages[-1].rows if row.what == "transformer"]
    assert (row.where, row.mapped) == ("host", row.bytes)
    fused = planned(24, 8, layout="disk", fused_parameters=GB)  # what LoRAs have changed is in no file
    assert fused.host_bytes >= plan.host_bytes + 2 * GB
    quantised = make_plan(replace(plan.case, precision="int8"))
    assert quantised.host_bytes > 16 * GB


def test_copies_take_time() -> None:
    def times(layout: str, host: float = 64, **changes: Any) -> dict[str, float]:
        plan = planned(24, host, layout=layout, **changes)
        return {stage.name: stage.seconds(4e14, 20e9) for stage in plan.stages} | {"all": plan.seconds(4e14, 20e9)}

    shape, plain = FULL.transformer, {"reasoning_steps": 0, "trajectory": False}
    streamed = times("stream", **plain)
    step = 2 * shape.layers * (shape.block_parameters - shape.prompt_parameters) / 20e9
    assert streamed["denoise"] == pytest.approx(100 * step, rel=0.05)  # more than it computes
    assert times("stream")["denoise, to show it"] == pytest.approx(times("turns")["denoise, to show it"], rel=0.01)
    assert 0 < times("turns")["all"] - times("together")["all"] < 4
    slow, cached = (times("disk", host, **plain)["denoise"] for host in (16, 64))
    assert slow == pytest.approx(10 * cached, rel=0.05) and cached == streamed["denoise"]
    assert planned(24, layout="stream").seconds(4e14, 40e9) < planned(24, layout="stream").seconds(4e14, 20e9)


def test_steps_that_are_not_guided_take_no_second_pass() -> None:
    whole, half = (planned(80, guided_until=share) for share in (1.0, 0.5))
    flops = [{stage.name: stage.flops for stage in plan.stages} for plan in (whole, half)]
    assert flops[0]["denoise, reasoning"] == flops[1]["denoise, reasoning"]  # the first 10 of 25 that are guided
    assert flops[1]["denoise"] / flops[0]["denoise"] == pytest.approx((40 + 15) / 80, rel=0.01)
    assert half.device_bytes == whole.device_bytes and half.seconds(4e14) < whole.seconds(4e14)
    work = replace(THINKING, guided_until=0.01)
    assert [work.guided_steps(0, 50), work.guided_steps(10, 50)] == [1, 0]
    assert replace(THINKING, guided=False).guided_steps(0, 50) == 0


def test_the_layout_is_chosen() -> None:
    assert choose(planned(80).case).case.layout == "together"
    assert choose(planned(48).case).case.layout == "turns"
    assert choose(planned(80, layout="turns").case).case.layout == "turns"
    assert choose(planned(24).case).case.layout == "stream"
    assert choose(planned(24, 16).case).case.layout == "disk"
    close = planned(0.95 * planned(24, layout="stream").device_bytes / GB)
    assert choose(close.case).case.layout == "stream"  # disk would take no less of what is short
    hopeless = choose(planned(2).case)
    assert hopeless.hopeless and hopeless.case.layout == "together"
    shared = replace(H100, kind="mps", device_bytes=48 * GB)
    assert choose(replace(planned(48).case, machine=shared)).case.layout == "together"


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_one_memory_holds_all_of_it(layout: str) -> None:
    """On a CPU nothing lies elsewhere; blocks that are streamed all the same take room besides."""
    machine = Machine(kind="cpu", device_bytes=200 * GB, host_bytes=200 * GB)
    plan = make_plan(Case(facts=FULL, work=THINKING, machine=machine, layout=layout))
    together = make_plan(replace(plan.case, layout="together"))
    assert plan.host_bytes == 0 and all(row.where == "device" for stage in plan.stages for row in stage.rows)
    assert (plan.device_bytes < together.device_bytes) == (layout == "disk")
    assert sum(stage.copied + stage.streamed for stage in plan.stages) == 0


def test_near_the_limit_nothing_is_refused() -> None:
    needed = planned(80).device_bytes / GB
    assert planned(needed + 0.01).fits
    close = planned(0.95 * needed)
    assert not close.fits and not close.hopeless
    assert planned(0.85 * needed).hopeless


def test_weights_that_are_mapped_are_not_missing(random_checkpoint: Path) -> None:
    facts, work = read_facts(random_checkpoint), Work(height=32, width=32, steps=4)
    plan = make_plan(Case(facts=facts, work=work, machine=Machine(kind="cpu", device_bytes=GB, host_bytes=GB)))
    stage = plan.stages[-1]
    weights = sum(component.bytes(4) for component in facts.components.values())
    assert stage.bytes("device") - stage.must_stay_bytes("device") == weights
    assert plan.host_bytes == 0  # one memory
    stored_otherwise = Component(name="transformer", stored={"BF16": 100})
    assert stored_otherwise.mapped_bytes(4) == 0 and stored_otherwise.mapped_bytes(2) == 200


def test_the_nearest_that_fits_is_named() -> None:
    turns, stream = (
        "parts that take turns (--offload-model)",
        "a transformer that comes block by block (--memory stream)",
    )
    tiles = "the autoencoder in tiles (--vae-tiling 512)"
    assert [words for words, _ in nearest(planned(53))] == [tiles, turns]
    assert [words for words, _ in nearest(planned(48))] == [turns, "weights in 8 bits (--precision int8)"]
    assert nearest(planned(35.5))[0][0] == stream
    assert nearest(planned(35.5, 32))[0][0] == "weights that stay in their files (--memory disk)"
    two = nearest(planned(12))
    assert two[0][0] == f"{tiles} and {stream}" and two[1][0].startswith(f"{stream} and --height")
    assert all(plan.fits for _, plan in two)
    assert nearest(planned(2)) == []
    assert least(planned(2)).device_bytes < 4 * GB
    assert nearest(planned(64, 4, layout="turns"))[0][0] == "weights that stay in their files (--memory disk)"


def test_each_change_lowers_the_peak() -> None:
    plans = [planned(80, layout=layout, variants=4) for layout in ("together", "turns")]
    for plan in plans:
        lower = gains(plan)
        assert len(lower) >= 5 and all(each.device_bytes < plan.device_bytes for _, each in lower)
    assert gain_lines(plans[0])[0].endswith("with parts that take turns (--offload-model)")
    assert gain_lines(plans[1])[0].endswith("with a transformer that comes block by block (--memory stream)")


def test_the_plan_in_words() -> None:
    lines = table(planned(80), 4e14)
    assert lines[0].split() == ["stage", "device", "main", "memory", "about"]
    assert lines[-1].startswith("the most at once") and lines[-1].endswith("in all")
    assert len({len(line) for line in lines}) == 1
    assert "about" not in table(planned(80))[0]
    assert verdict(planned(80)).startswith("fits, where all parts stay on the device: 80.0 GB free")
    assert "may fit" in verdict(planned(0.95 * planned(80).device_bytes / GB))
    assert verdict(planned(16)).startswith("does not fit")
    assert "It would fit with parts that take turns (--offload-model): 37.1 GB and 4" in refusal(planned(48))
    assert "2.0 GB are free" in refusal(planned(2)) and "use a smaller model" in refusal(planned(2))
    assert "of main memory in the stage" in refusal(planned(48, 32, layout="turns"))
    assert (size(123_456_789), size(12_345_678_900)) == ("123 MB", "12.3 GB")


@pytest.mark.parametrize("changes", [{"height": 0}, {"steps": 0}, {"reasoning_steps": 51}, {"variants": 0}])
def test_work_that_cannot_be(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changes))} is .* expected"):
        replace(THINKING, **changes)


def test_every_part_of_a_model_has_facts() -> None:
    facts: ModelFacts = read_facts("tiny")
    assert facts.image is None and set(facts.components) == {"transformer", "autoencoder", "text_encoder"}
    assert facts.token_side_px == 16 and facts.tokens(8, 128, 128) == 512


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured as Linux tells it")
def test_the_plan_agrees_with_what_a_process_takes() -> None:
    """Without the holes of the C library's heap, which come to at most some 0.2 GB."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(BENCHMARK), "--case.steps", "1"]
    command += ["--case.height", "192", "--case.width", "192"]
    for _ in range(2):  # on a busy machine the kernel may take pages away while the process runs
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        if figures["planned_bytes"] == pytest.approx(figures["measured_bytes"], rel=0.25):
            break
    assert figures["planned_bytes"] == pytest.approx(figures["measured_bytes"], rel=0.25)


def test_weights_in_fewer_bits_are_planned() -> None:
    case = Case(facts=FULL, work=THINKING, machine=replace(H100, device_bytes=24 * GB), layout="turns")
    whole, small = make_plan(case), make_plan(replace(case, precision="int8"))
    by_name = {stage.name: stage for stage in small.stages}
    assert by_name["load"].bytes("device") == 0  # made smaller in main memory first
    saved = whole.device_bytes - small.device_bytes
    blocks = FULL.transformer.layers * FULL.transformer.block_parameters
    assert saved == pytest.approx(blocks, rel=0.01) and small.fits and not whole.fits
    assert any("--precision int8" in words for words, _ in nearest(whole))
    smallest = make_plan(replace(case, precision="int4"))
    denoise = [next(stage for stage in plan.stages if stage.name == "denoise") for plan in (small, smallest)]
    assert denoise[0].bytes("device") - denoise[1].bytes("device") == pytest.approx(blocks / 2, rel=0.01)


def test_weights_in_fewer_bits_take_what_was_planned(random_checkpoint: Path) -> None:
    pytest.importorskip("torchao")
    from chronoedit.editing.loading import load
    from chronoedit.request import EditRequest
    from chronoedit.runtime.frozen import stored_bytes as measured
    from chronoedit.runtime.plan import stored_bytes

    editor = load(random_checkpoint, device="cpu", precision="bf16")
    from PIL import Image

    editor.edit(EditRequest(image=Image.new("RGB", (64, 64)), prompt="x", num_inference_steps=1, guidance_scale=1.0))
    machine = Machine(kind="cpu", device_bytes=GB, host_bytes=GB)
    case = Case(facts=read_facts(random_checkpoint), work=THINKING, machine=machine, precision="bf16")
    assert stored_bytes(case) == pytest.approx(measured(editor.components.transformer), rel=0.1)
