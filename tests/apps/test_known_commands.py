"""The commands of the published guide, word for word but for the paths, run on a random checkpoint.

Each row is a shell command as people have it in their notes, the program's name changed; the paths in it are made in
an empty folder first.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit import media
from chronoedit.apps.main import main

torch = pytest.importorskip("torch")

MODEL = "./checkpoints/ChronoEdit-14B-Diffusers"
DISTILL = f"{MODEL}/lora/chronoedit_distill_lora.safetensors"
UPSCALER = "./checkpoints/ChronoEdit-14B-Diffusers-Upscaler-Lora/upsample_lora_diffusers.safetensors"
TRAINING = "./checkpoints/ChronoEdit-14B/iter_000010000/model"
PAINT_BRUSH = "./checkpoints/paintbrush_lora.safetensors"
UPSCALE_PROMPT = (
    "The user want to enhance image clarity and resolution while keeping the content identical. "
    "super-resolution, high detail, 4K clarity, same composition, natural texture."
)

PLAIN = (
    "chronoedit edit --input assets/images/input_2.png --offload_model --use-prompt-enhancer "
    f'--prompt "Add a sunglasses to the cat\'s face" --output output.mp4 --model-path {MODEL}'
)
EIGHT_STEPS = (
    "chronoedit edit --use-prompt-enhancer --offload_model --input assets/images/input_2.png "
    '--prompt "Add a sunglasses to the cat\'s face" --output output_lora.mp4 --num-inference-steps 8 '
    f"--guidance-scale 1.0 --flow-shift 2.0 --lora-scale 1.0 --seed 42 --lora-path {DISTILL} --model-path {MODEL}"
)
UPSCALE = (
    "chronoedit edit --input assets/images/lr.png --width 1584 --height 1056 "
    f'--prompt "{UPSCALE_PROMPT}" --output output_sr_lora.mp4 --lora-scale 1.0 --seed 42 '
    f"--lora-path {UPSCALER} --model-path {MODEL}"
)


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory, random_checkpoint: Path) -> Path:
    """A folder with the paths of the published guide: pictures, a checkpoint of one step, LoRAs of two dialects."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("guide")
    (folder / "assets" / "images").mkdir(parents=True)
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8))
    for name in ("input_2.png", "lr.png"):
        coarse.resize((72, 48), Image.Resampling.BICUBIC).save(folder / "assets" / "images" / name)
    shutil.copytree(random_checkpoint, folder / MODEL)
    light_autoencoder().save_pretrained(folder / MODEL / "vae")
    settings = json.loads((folder / MODEL / "chronoedit.json").read_text())
    (folder / MODEL / "chronoedit.json").write_text(json.dumps({**settings, "num_inference_steps": 2}))
    names = {
        DISTILL: "diffusion_model.blocks.0.self_attn.q",
        UPSCALER: "transformer.blocks.0.attn1.to_v",
        PAINT_BRUSH: "transformer.blocks.1.attn1.to_q",
    }
    for seed, (path, module) in enumerate(names.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        factors = {"A": torch.randn(4, 96, generator=generator), "B": torch.randn(96, 4, generator=generator)}
        save_file({f"{module}.lora_{side}.weight": factor for side, factor in factors.items()}, folder / path)
    return folder


def light_autoencoder():
    """One that codes 1584x1056 in seconds on one core: patches of 2 px, the least channels; 8x and 4x as published."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        patch_size=2,
        in_channels=12,
        out_channels=12,
    )


@pytest.fixture(autouse=True)
def in_the_guide(guide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(guide)
    # The guide's commands would fetch the enhancer's 60 GB; what it answers is tested in test_edit_enhanced.py.
    monkeypatch.setattr("chronoedit.apps.vlm_flags.DEFAULT_VLM", str(guide / "no-enhancer"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # for subprocesses


def run(command: str) -> dict:
    """Run a command line as a shell would read it; returns what its picture remembers."""
    words = shlex.split(command)
    assert words[0] == "chronoedit"
    assert main(words[1:]) == 0
    output = Path(words[words.index("--output") + 1])
    assert media.read_video(output).ndim == 4
    metadata = media.read_metadata(output.with_suffix(".png"))
    assert metadata is not None
    return metadata


def test_plain(capsys: pytest.CaptureFixture[str]) -> None:
    metadata = run(PLAIN)
    assert metadata["request"]["prompt"] == "Add a sunglasses to the cat's face"
    assert not metadata["request"]["reasoning"] and media.read_video("output.mp4").shape[0] == 5
    assert metadata["model"] == MODEL
    assert "the prompt is not enhanced, the edit goes on with yours" in capsys.readouterr().err


def test_with_temporal_reasoning() -> None:
    request = run(f"{PLAIN} --enable-temporal-reasoning")["request"]
    assert request["num_reasoning_steps"] == 1  # a fifth of the steps; published: 50, which never drops
    assert media.read_video("output.mp4").shape[0] == 26
    request = run(f"{PLAIN} --enable-temporal-reasoning --num-temporal-reasoning-steps 2")["request"]
    assert request["num_reasoning_steps"] == request["num_inference_steps"] == 2


def test_eight_steps_with_the_distillation_lora() -> None:
    published = run(EIGHT_STEPS)
    request = published["request"]
    values = [request[key] for key in ("num_inference_steps", "guidance_scale", "flow_shift", "seed")]
    assert values == [8, 1.0, 2.0, 42]
    assert published["loras"] == [{"path": DISTILL.removeprefix("./"), "scale": 1.0}]
    preset = run(
        'chronoedit edit --input assets/images/input_2.png --prompt "Add a sunglasses to the cat\'s face" '
        f"--output preset.mp4 --preset turbo --lora-path {DISTILL} --seed 42 --model-path {MODEL}"
    )
    assert {**preset["request"], "image": None} == {**request, "image": None}
    assert preset["hashes"] == published["hashes"]
    same = [np.asarray(media.load_image(name)) for name in ("output_lora.png", "preset.png")]
    np.testing.assert_array_equal(*same)


def test_several_loras_each_with_its_scale() -> None:
    two = f"--lora-path {PAINT_BRUSH} {DISTILL} --lora-scale 1 0.8"
    metadata = run(f"{PLAIN} --num-inference-steps 1 --seed 1 {two}")
    assert [lora["scale"] for lora in metadata["loras"]] == [1.0, 0.8]
    assert len(set(metadata["hashes"]["loras"])) == 2
    with_both = np.asarray(media.load_image("output.png"))
    run(f"{PLAIN} --num-inference-steps 1 --seed 1 --lora-path {PAINT_BRUSH}")
    assert (np.asarray(media.load_image("output.png")) != with_both).any()


def test_upscaling(monkeypatch: pytest.MonkeyPatch) -> None:
    # The size is the published one; the work is cut to one step, since each forward has 13,068 tokens.
    settings = Path(MODEL) / "chronoedit.json"
    before = settings.read_text()
    settings.write_text(json.dumps({**json.loads(before), "num_inference_steps": 1, "guidance_scale": 1.0}))
    try:
        metadata = run(UPSCALE)
    finally:
        settings.write_text(before)
    assert media.load_image("output_sr_lora.png").size == (1584, 1056)
    assert metadata["request"]["prompt"] == UPSCALE_PROMPT


def test_the_task_fills_in_the_prompt_of_the_upscaler() -> None:
    metadata = run(
        "chronoedit edit --input assets/images/lr.png --task upscale --output task.mp4 --seed 42 "
        f"--lora-path {UPSCALER} --model-path {MODEL}"
    )
    assert metadata["request"]["prompt"] == UPSCALE_PROMPT


def test_torchrun_edits_once_by_all_that_can_share_it() -> None:
    command = PLAIN.replace("chronoedit edit", "torchrun --standalone --nproc_per_node=8 -m chronoedit edit")
    words = shlex.split(command)
    words[0:1] = [sys.executable, "-m", "torch.distributed.run"]
    words[words.index("output.mp4")] = "many/output.png"
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "many/output.png\n"
    assert [path.name for path in Path("many").iterdir()] == ["output.png"]
    assert (
        "4 processes share the edit: guidance branches 2, parts of the tokens 2; 4 more have nothing" in result.stderr
    )
    alone = media.load_image("many/output.png")
    assert main(["edit", "--like", "many/output.png", "--output", "alone.png"]) == 0
    difference = np.asarray(media.load_image("alone.png")).astype(int) - np.asarray(alone)
    assert abs(difference).max() <= 1


def test_training_checkpoints_become_what_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    """Published: one script writes a single file, of the average with --ema; another, never shipped, the layout."""
    import torch.distributed.checkpoint as dcp
    from safetensors.torch import load_file

    from chronoedit.model import keys

    weights = load_file(Path(MODEL) / "transformer" / "diffusion_pytorch_model.safetensors")
    original = {str(keys.to_original(name)): tensor for name, tensor in weights.items()}
    state = {f"net.{name}": tensor for name, tensor in original.items()}
    state |= {f"net_ema.{name}": -tensor for name, tensor in original.items()}
    dcp.save(state, checkpoint_id=TRAINING, no_dist=True)
    for flags, sign in (("", 1), (" --ema", -1)):
        single = f"./checkpoints/ChronoEdit-14B/nvidia/chronoedit_14B/model{flags.strip(' -')}.safetensors"
        assert main(shlex.split(f"convert {TRAINING} {single}{flags}")) == 0
        assert all(torch.equal(tensor, sign * original[name]) for name, tensor in load_file(single).items())
    assert main(shlex.split(f"convert {TRAINING} ./checkpoints/converted --base {MODEL} --ema")) == 0
    assert main(shlex.split("info ./checkpoints/converted")) == 0
    assert "ChronoEditTransformer3DModel" in capsys.readouterr().out
    written = load_file("./checkpoints/converted/transformer/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensor, -weights[name]) for name, tensor in written.items())
