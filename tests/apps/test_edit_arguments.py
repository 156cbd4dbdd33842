"""What `chronoedit edit` refuses, with exit code 2 and a remedy, before any model is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.apps.main import main


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(path)
    return path


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a model fails the test: what is refused here is refused before."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr("chronoedit.apps.session.opened", load)
    monkeypatch.setattr("chronoedit.apps.commands.edit.opened", load)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The message, on one line, of a command that ends with exit code 2."""
    code = main(["edit", *map(str, words)])
    out, err = capsys.readouterr()
    assert code == 2, f"exit code {code}: {err}"
    assert out == "" and "Traceback" not in err
    return " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-p", ""], "prompt is empty"),
        (["-p", "   "], "prompt is empty"),
        ([], "no prompt was given"),
        (["-p", "x", "--height", "721"], "height 721 is not a multiple of 16; use 720 or 736"),
        (["-p", "x", "--width", "0"], "width 0 is below 16"),
        (["-p", "x", "--num-inference-steps", "0"], "num_inference_steps 0 is below 1"),
        (["-p", "x", "--num_inference_steps", "-3"], "num_inference_steps -3 is below 1"),
        (["-p", "x", "--num-inference-steps", "4", "--num-temporal-reasoning-steps", "5"], "is more than"),
        (
            ["-p", "x", "--enable-temporal-reasoning", "--num-temporal-reasoning-steps", "0"],
            "steps 0 with reasoning on",
        ),
        (["-p", "x", "--guidance-scale", "0.5"], "guidance_scale 0.5 is too low"),
        (["-p", "x", "--flow-shift", "nan"], "flow_shift is nan"),
        (["-p", "x", "--step-cache", "block"], "step_cache 'block' is unknown; choose from first-block, mag"),
        (["-p", "x", "--step-cache", "mag", "--preset", "turbo"], "step_cache 'mag' with 8 steps"),
        (["-p", "x", "--seed", "-1"], "seed -1 is below 0"),
        (["-p", "x", "--variants", "0"], "variants 0 is below 1"),
        (["-p", "x", "--preset", "best"], "choose from quality, think, turbo"),
        (["-p", "x", "--preset", "quality", "--enable-temporal-reasoning"], "use the preset 'think'"),
        (["-p", "x", "--task", "upscale"], "--task upscale brings its own prompt"),
        (["--task", "sharpen"], "there is no task 'sharpen'; choose from upscale"),
        (["-p", "x", "--lora-path", "none.safetensors"], "there is no LoRA file none.safetensors"),
        (["-p", "x", "--lora-scale", "1"], "--lora-scale without --lora-path"),
        (["-p", "x", "--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["-p", "x", "--lora-path", "a", "--lora_path", "b"], "--lora-path is given twice"),
        (["-p", "x", "--sead", "1"], "--sead"),
        (["-p", "x", "--seed", "seven"], "seven"),
    ],
)
def test_flags(photo: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    output = photo.with_name("out.png")
    assert message in refused(capsys, "-i", photo, "-o", output, *flags)
    assert not output.exists()


def test_the_names_in_messages_are_those_of_flags(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(
        capsys, "-i", photo, "-p", "x", "--num-inference-steps", 4, "--num-temporal-reasoning-steps", 5, "-o", "a.png"
    )
    assert "num_temporal_reasoning_steps 5 is more than num_inference_steps 4" in message


def test_scales_that_do_not_match_the_loras(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loras = [photo.with_name(name) for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for lora in loras:
        lora.touch()
    message = refused(capsys, "-i", photo, "-p", "x", "--lora-path", *loras, "--lora-scale", 1, 0.8)
    assert "2 values of --lora-scale for 3 of --lora-path" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, "there is no file"),
        ("words.png", b"words", "not a picture"),
        ("empty.png", b"", "is empty"),
    ],
)
def test_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in refused(capsys, "-i", tmp_path / name, "-p", "x", "-o", tmp_path / "out.png")


def test_a_truncated_jpeg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert "cut short" in refused(capsys, "-i", path, "-p", "x", "-o", tmp_path / "out.png")


def test_a_folder_as_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a folder" in refused(capsys, "-i", tmp_path, "-p", "x", "-o", tmp_path / "out.png")


@pytest.mark.parametrize(("size", "message"), [((1, 1), "at least 16 px"), ((20000, 20), "16:1")])
def test_input_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str], size: tuple[int, int], message: str) -> None:
    Image.new("RGB", size).save(tmp_path / "in.png")
    assert message in refused(capsys, "-i", tmp_path / "in.png", "-p", "x", "-o", tmp_path / "out.png")


def test_no_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert "name it with --input FILE (-i)" in refused(capsys, "-p", "x")


def test_outputs_that_cannot_be_written(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("-i", photo, "-p", "x", "-o")
    assert "cannot write" in refused(capsys, *given, photo / "out.png")
    assert "use one of .png, .jpg, .jpeg, .webp, .mp4" in refused(capsys, *given, photo.with_name("out.bmp"))
    (photo.with_name("folder.png")).mkdir()
    assert "is a folder" in refused(capsys, *given, photo.with_name("folder.png"))
    both = (photo.with_name("a.png"), "--output-image", photo.with_name("b.png"))
    assert "both name the picture" in refused(capsys, *given, *both)
    assert "use one of .png" in refused(capsys, *given, photo.with_name("a.mp4"), "--output-image", "b.txt")


def test_the_input_is_never_overwritten(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = photo.read_bytes()
    for output in (photo, photo.with_suffix(".mp4")):  # the last frame of the video would be photo.png
        assert "would be overwritten" in refused(capsys, "-i", photo, "-p", "x", "-o", output)
    (photo.with_name("link.png")).symlink_to(photo)
    assert "would be overwritten" in refused(capsys, "-i", photo, "-p", "x", "-o", photo.with_name("link.png"))
    assert photo.read_bytes() == before


def test_like_goes_with_no_other_wish(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (("-p", "x"), ("--seed", 3), ("--enable-temporal-reasoning",)):
        assert "--like repeats an edit as it was" in refused(capsys, "--like", photo, *flags)
    assert "holds no record" in refused(capsys, "--like", photo)
    assert "there is no file" in refused(capsys, "--like", photo.with_name("none.png"))


def test_both_spellings_and_aliases_are_read(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chronoedit.apps.commands.edit import Edit

    seen: list[Edit] = []
    monkeypatch.setattr(Edit, "run", lambda self: seen.append(self))
    words = (
        "-i a.png -o b.mp4 -p hat --offload_model --use-prompt-enhancer --model-id m --lora_path a b --lora-scale 1 0.8"
    )
    same = "--input a.png --output b.mp4 --prompt hat --offload-model --use_prompt_enhancer --model_path m"
    same += " --lora-path a b --lora_scale 1 0.8"
    assert main(["edit", *words.split()]) == main(["edit", *same.split()]) == 0
    assert seen[0] == seen[1]
    assert seen[0].model.offload_model and seen[0].model.loras() == (("a", 1.0), ("b", 0.8))


def test_one_scale_serves_all_loras() -> None:
    from chronoedit.apps.options import ModelFlags

    paths = (Path("a"), Path("b"))
    assert ModelFlags(lora_path=paths, lora_scale=(0.5,)).loras() == (("a", 0.5), ("b", 0.5))
    assert ModelFlags(lora_path=paths).loras() == (("a", 1.0), ("b", 1.0))
    assert ModelFlags().loras() == ()


def test_help_and_refusals_import_no_torch(photo: Path) -> None:
    script = (
        "import sys; from chronoedit.apps.main import main\n"
        "assert main(['edit', '--help']) == 0\n"
        f"assert main(['edit', '-i', {str(photo)!r}, '-p', 'x', '--seed', '-1', '-o', 'a.png']) == 2\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_devices(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from chronoedit.apps.session import check_device

    check_device(None)
    check_device("cpu")
    with pytest.raises(ValueError, match="is no device"):
        check_device("gpu")
    with pytest.raises(ValueError, match="is not supported"):
        check_device("meta")
    with pytest.raises(ValueError, match=f"has {torch.cuda.device_count()} of cuda"):
        check_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize(
    ("built_for", "visible", "why"),
    [
        (None, None, "is built without it, install one that has it; leave out --device"),
        ("12.8", None, "no driver answers, nvidia-smi (rocm-smi) must list the GPU first; leave out --device"),
        ("12.8", "", "CUDA_VISIBLE_DEVICES hides them all; leave out --device"),
    ],
)
def test_a_gpu_that_is_missing_says_why_before_anything_is_loaded(
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    built_for: str | None,
    visible: str | None,
    why: str,
) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("chronoedit.apps.commands.edit.opened", lambda *_: pytest.fail("nothing is to be loaded"))
    output = photo.with_name("out.png")
    assert main(["edit", "-i", str(photo), "-p", "x", "-o", str(output), "--device", "cuda"]) == 2
    err = capsys.readouterr().err
    assert "--device cuda: this machine has 0 of cuda: " in err and why in err


def test_extra_processes_of_torchrun_have_nothing_to_do(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "64")  # more than any layout of the embedded model's heads uses
    monkeypatch.setitem(os.environ, "RANK", "63")
    words = ["edit", "-i", str(photo), "-p", "x", "-o", str(photo.with_name("out.png"))]
    assert main(words) == 0
    assert capsys.readouterr() == ("", "") and not photo.with_name("out.png").exists()
    assert main([*words, "--variants", "0"]) == 2
    assert capsys.readouterr().err == ""  # the first one says it
