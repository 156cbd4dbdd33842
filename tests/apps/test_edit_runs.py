"""`chronoedit edit` and `chain` from argv to files, on a random checkpoint at tiny sizes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit import media
from chronoedit.apps.main import main
from chronoedit.apps.progress import StageBars
from chronoedit.request import Progress

torch = pytest.importorskip("torch")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    coarse = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def edit(photo: Path, random_checkpoint_no_image: Path, capsys: pytest.CaptureFixture[str]):
    """Run one edit of the photo in two steps; returns its exit code, stdout and stderr."""

    def run(*words: object, wish: tuple[object, ...] = ("-i", photo, "-p", "add a hat")) -> tuple[int, str, str]:
        steps = () if "--like" in words else ("--num-inference-steps", 2)
        command = ["edit", *wish, "--model-path", random_checkpoint_no_image, *steps, *words]
        code = main(list(map(str, command)))
        return code, *capsys.readouterr()

    return run


def luma(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.2126, 0.7152, 0.0722])


def write_lora(path: Path, module: str = "blocks.0.attn1.to_q", width: int = 96) -> Path:
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    factors = {
        f"transformer.{module}.lora_A.weight": torch.randn(4, width, generator=generator),
        f"transformer.{module}.lora_B.weight": torch.randn(width, 4, generator=generator),
    }
    save_file(factors, path)
    return path


def test_pictures_of_all_variants_with_their_records(edit, tmp_path: Path, random_checkpoint_no_image: Path) -> None:
    code, out, err = edit("-o", tmp_path / "new" / "out.png", "--seed", 3, "--variants", 2)
    paths = [tmp_path / "new" / name for name in ("out.png", "out-1.png")]
    assert (code, out) == (0, f"{paths[0]}\n{paths[1]}\n")
    assert "64x48 px, seed 3" in err and "\r" not in err and len(err.splitlines()) == 1  # no bar: not a terminal
    pictures = [np.asarray(media.load_image(path)) for path in paths]
    assert pictures[0].shape == (48, 64, 3) and (pictures[0] != pictures[1]).any()
    for k, path in enumerate(paths):
        metadata = media.read_metadata(path)
        assert metadata["variant"] == k and metadata["model"] == str(random_checkpoint_no_image)
        assert metadata["request"]["seed"] == 3 and metadata["request"]["num_variants"] == 2
        assert metadata["hashes"]["image"] == media.image_sha256(tmp_path / "photo.png")


def test_like_repeats_or_says_which_hash_differs(
    edit, tmp_path: Path, photo: Path, random_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = write_lora(tmp_path / "a.safetensors")
    first = tmp_path / "out.png"
    assert edit("-o", first, "--variants", 2, "--lora-path", lora, "--lora-scale", 0.5)[0] == 0
    first = tmp_path / "out-1.png"
    again = ("--like", first, "-o", tmp_path / "again.png")
    code, out, _ = edit(*again, wish=())
    assert code == 0 and f"the same as {first}, pixel for pixel" in out
    np.testing.assert_array_equal(*[np.asarray(media.load_image(path)) for path in (first, tmp_path / "again.png")])

    code, _, err = edit("--like", first, "-o", first, wish=())
    assert code == 2 and f"{first} is the file given with --like" in err
    code, _, err = edit("--like", first, "-o", tmp_path / "again.mp4", wish=())
    assert code == 2 and "is variant 1, and a video is made of the first" in err

    code, _, err = edit(*again, "--lora-path", lora, "--lora-scale", 1, wish=())
    assert code == 1 and "was made with --lora-scale 0.5, not 1.0" in err
    write_lora(lora, "blocks.1.attn1.to_q")
    code, _, err = edit(*again, wish=())
    assert code == 1 and f"the LoRA {lora} is not the one" in err
    write_lora(lora)

    code = main(["edit", *map(str, again), "--model-path", str(random_checkpoint)])
    err = capsys.readouterr().err
    assert code == 1 and f"the model {random_checkpoint} is not the one" in err and "sha256" in err

    shutil.move(photo, tmp_path / "moved.png")
    code, _, err = edit(*again, wish=())
    assert code == 2 and "name it with --input" in err
    Image.new("RGB", (80, 60)).save(photo)
    code, _, err = edit(*again, wish=())
    assert code == 1 and f"the input picture {photo} is not the one" in err
    assert edit(*again, "-i", tmp_path / "moved.png", wish=())[0] == 0


def test_a_video_of_the_whole_trajectory_with_its_last_frame(edit, tmp_path: Path) -> None:
    code, out, _ = edit("-o", tmp_path / "out.mp4", "--enable_temporal_reasoning", "--seed", 1)
    assert code == 0 and out.split() == [str(tmp_path / "out.mp4"), str(tmp_path / "out.png")]
    video, last = media.read_video(tmp_path / "out.mp4"), np.asarray(media.load_image(tmp_path / "out.png"))
    assert video.shape == (26, 48, 64, 3)  # 25 frames of reasoning, then the edit
    assert np.abs(luma(video[-1]) - luma(last)).mean() < 6  # colour is halved in size by the codec, and this is noise
    request = media.read_metadata(tmp_path / "out.png")["request"]
    assert request["reasoning"] and request["num_reasoning_steps"] == 1

    # The same edit without the trajectory has the same picture.
    steps = ("--num-temporal-reasoning-steps", 1)
    assert edit("-o", tmp_path / "still.png", "--seed", 1, *steps)[0] == 0
    np.testing.assert_array_equal(np.asarray(media.load_image(tmp_path / "still.png")), last)


def test_a_video_without_reasoning_and_a_picture_elsewhere(edit, tmp_path: Path) -> None:
    assert edit("-o", tmp_path / "out.mp4", "--output-image", tmp_path / "last.jpg", "--seed", 1)[0] == 0
    assert media.read_video(tmp_path / "out.mp4").shape == (5, 48, 64, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.jpg", "out.mp4", "photo.png"]


def test_sizes_and_presets(edit, tmp_path: Path) -> None:
    output = tmp_path / "out.webp"
    code, _, err = edit("-o", output, "--width", 32, "--preset", "turbo", "--at-photo-size", "--verbose")
    assert code == 0 and "'guidance_scale': 1.0" in err and "on cpu, in torch.float32" in err
    request = media.read_metadata(output)["request"]
    assert (request["width"], request["height"]) == (32, 16 * round(24 / 16))
    assert (request["num_inference_steps"], request["guidance_scale"], request["flow_shift"]) == (2, 1.0, 2.0)
    assert media.load_image(output).size == (80, 60)


def test_attention_is_remembered_or_refused(edit, tmp_path: Path) -> None:
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    assert edit("--attention", "math", "-o", first)[0] == 0
    assert media.read_metadata(first)["attention"] == "math"
    assert edit("--like", first, "-o", again, wish=())[0] == 0
    assert media.read_metadata(again)["attention"] == "math"
    code, _, err = edit("--attention", "flash3", "--device", "cpu", "-o", again)
    assert code == 2 and "attention 'flash3' cannot run here" in err and "sdpa, flash, math" in err


def test_compiling_is_a_flag(edit, tmp_path: Path) -> None:
    code, _, err = edit("--compile", "--precision", "int8", "-o", tmp_path / "a.png")
    assert code == 2 and "stored in int8 are not compiled" in err


def test_published_flags_are_accepted_and_explained(edit, tmp_path: Path) -> None:
    code, _, err = edit("-o", tmp_path / "out.png", "--disable-guardrails", "--offload_model", "--device", "cpu")
    assert code == 0
    assert "no filter looks at pictures or prompts here" in err


def test_the_upscaling_task_fills_in_its_prompt(edit, tmp_path: Path, photo: Path) -> None:
    code, _, err = edit("-o", tmp_path / "out.png", "--task", "upscale", wish=("-i", photo))
    assert code == 0 and "none was given with --lora-path" in err
    prompt = media.read_metadata(tmp_path / "out.png")["request"]["prompt"]
    assert prompt.startswith("The user want to enhance image clarity and resolution")


def test_a_prompt_over_the_limit_is_cut_with_a_warning_that_shows_the_end(edit, tmp_path: Path, photo: Path) -> None:
    prompt = "add a hat " * 300 + "zebra"
    code, _, err = edit("-o", tmp_path / "out.png", wish=("-i", photo, "-p", prompt))
    assert code == 0 and "WARNING: the prompt has" in err and "zebra" in err


def test_a_model_or_lora_that_does_not_fit_fails(edit, tmp_path: Path, photo: Path) -> None:
    code = main(
        ["edit", "-i", str(photo), "-p", "x", "-o", str(tmp_path / "o.png"), "--model-path", str(tmp_path / "no")]
    )
    assert code == 1
    lora = write_lora(tmp_path / "wrong.safetensors", "blocks.99.attn1.to_q")
    code, _, err = edit("-o", tmp_path / "o.png", "--lora-path", lora)
    assert code == 1 and "wrong.safetensors" in err
    code, _, err = edit("-o", tmp_path / "o.png", "--num-temporal-reasoning-steps", 3)
    assert code == 2 and "is more than num_inference_steps 2" in err
    assert not (tmp_path / "o.png").exists()


def test_a_full_disk_leaves_what_was_there(edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, out, err = edit("-o", output)
    assert (code, out) == (1, "") and "no space left to write" in err and "Traceback" not in err
    assert output.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "photo.png"]


@pytest.mark.parametrize("stage", ["load", "encode", "denoise", "trajectory", "decode", "write"])
def test_an_interrupt_ends_with_130_and_writes_nothing(
    edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def interrupt(_: StageBars, progress: Progress) -> None:
        if progress.stage == stage and (progress.done or stage != "denoise"):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(StageBars, "update", interrupt)
    if stage == "write":  # the video is there under another name, the picture is not
        monkeypatch.setattr(os, "fsync", lambda descriptor: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs are started without it
    try:
        code, out, err = edit("-o", tmp_path / "out.mp4", "--enable-temporal-reasoning")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out) == (130, "") and "Traceback" not in err
    assert [line for line in err.splitlines() if not line.startswith("note:")] == [
        "interrupted; files that were being written have been removed"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_running_out_of_memory_twice_says_where_and_what_helps(
    edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chronoedit.editing import editor

    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nSee the documentation")

    monkeypatch.setattr(editor, "decode_batch", exhausted)
    code, _, err = edit("-o", tmp_path / "out.png", "--memory", "off")
    assert code == 1 and "Traceback" not in err and "documentation" not in err
    assert "out of memory (decode: CUDA out of memory. Tried to allocate 20 GiB.); it is done again" in err
    assert (
        "error: out of memory in the stage 'decode' (CUDA out of memory. Tried to allocate 20 GiB.); a smaller height "
        "and width take less, and so does --precision int8"
    ) in err


def test_a_chain_is_saved_step_by_step_and_goes_on_where_it_stopped(
    tmp_path: Path,
    photo: Path,
    random_checkpoint_no_image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def chain(folder: str) -> tuple[int, str, str]:
        words = ["chain", "-i", photo, "-o", tmp_path / folder, "-p", "open the jar", "then add seasoning"]
        words += ["--model-path", random_checkpoint_no_image, "--num-inference-steps", 2, "--seed", 5]
        code = main(list(map(str, words)))
        return code, *capsys.readouterr()

    denoised = []

    def stop_in_the_second_step(_: StageBars, progress: Progress) -> None:
        denoised.append(progress) if progress.stage == "denoise" and progress.done == 0 else None
        if len(denoised) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StageBars, "update", stop_in_the_second_step)
        assert chain("stopped")[0] == 130
    steps = [tmp_path / "stopped" / f"step-0{k}.png" for k in (1, 2)]
    assert steps[0].exists() and not steps[1].exists()
    before = steps[0].stat().st_mtime_ns
    code, out, err = chain("stopped")
    assert code == 0 and out.split() == list(map(str, steps)) and "done before" in err
    assert steps[0].stat().st_mtime_ns == before
    assert media.read_metadata(steps[1])["request"]["image"] == str(steps[0])

    assert chain("whole")[0] == 0
    for step in steps:
        whole = np.asarray(media.load_image(tmp_path / "whole" / step.name))
        np.testing.assert_array_equal(np.asarray(media.load_image(step)), whole)


def test_what_a_chain_refuses(tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: object) -> str:
        assert main(["chain", *map(str, words)]) == 2
        return capsys.readouterr().err

    assert "prompt is empty" in refused("-i", photo, "-o", tmp_path / "d", "-p", "open", "")
    assert "no prompts were given" in refused("-i", photo, "-o", tmp_path / "d", "-p")
    assert "there is no file" in refused("-i", tmp_path / "no.png", "-o", tmp_path / "d", "-p", "open")
    assert "choose another --output" in refused("-i", photo, "-o", tmp_path, "-p", "open")
    assert "cannot write" in refused("-i", photo, "-o", photo / "d", "-p", "open")
    assert "--input" in refused("-o", tmp_path / "d", "-p", "open")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_record_that_is_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Image.new("RGB", (32, 32))
    media.save_image(image, tmp_path / "a.png", {"version": "0.0.1"})
    assert main(["edit", "--like", str(tmp_path / "a.png")]) == 2
    assert "lacks request, hashes" in capsys.readouterr().err
    request = {"image": "sha256:" + 64 * "0", "prompt": "x"}
    media.save_image(image, tmp_path / "a.png", {"version": "0.0.1", "request": request, "hashes": {}})
    assert main(["edit", "--like", str(tmp_path / "a.png")]) == 2
    err = capsys.readouterr().err
    assert "made by version 0.0.1" in err and "was no file; give it with --input FILE" in err
    assert json.loads(json.dumps(media.read_metadata(tmp_path / "a.png")))["request"] == request
