"""`chronoedit train lora`: the published command word for word, its flags, and what is refused before any work."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from chronoedit.apps.lora_training import folder_of_shards
from chronoedit.apps.main import main
from chronoedit.data.export import Export, export_world
from chronoedit.lora.adapters import read_lora
from chronoedit.lora.files import describe
from chronoedit.training.lora import LoraTrainer

PUBLISHED = """
--dataset_base_path data/example_dataset --dataset_metadata_path data/example_dataset/metadata.csv --height 1024
--width 1024 --num_frames 5 --dataset_repeat 1
--model_paths '[["CKPT/transformer/diffusion_pytorch_model.safetensors"]]'
--model_id_with_origin_paths "Wan-AI/Wan2.1-I2V-14B-720P:models_t5_umt5-xxl-enc-bf16.pth" --learning_rate 1e-4
--num_epochs 5 --remove_prefix_in_ckpt "pipe.dit." --output_path ./models/train/ChronoEdit-14B_lora
--lora_base_model dit --lora_target_modules "q,k,v,o,ffn.0,ffn.2" --lora_rank 32 --extra_inputs input_image
--use_gradient_checkpointing_offload
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    export_world(Export(count=2, clip_share=0.5, size_px=32), tmp_path / "data" / "example_dataset")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_published_command(workplace: Path, random_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(PUBLISHED.replace("CKPT", str(random_checkpoint)).replace("1024", "32"))
    assert main(["train", "lora", *words]) == 0
    captured = capsys.readouterr()
    path = Path(captured.out.strip())
    assert path == Path("models/train/ChronoEdit-14B_lora/lora.safetensors")
    for flag in ("model-id-with-origin-paths", "remove-prefix-in-ckpt", "lora-base-model", "extra-inputs"):
        assert f"--{flag}: " in captured.err
    found = describe(read_lora(path))
    assert found.ranks == {32: 2 * 10} and found.delta_norm > 0
    assert main(["train", "lora", *words]) == 0  # finished: nothing is trained again
    assert main(["train", "lora", *words, "--seed", "5"]) == 1
    assert "another recipe: seed differ" in capsys.readouterr().err
    assert main(["train", "lora", *words, "--seed", "5", "--fresh", "--max_steps", "1"]) == 0


def test_the_embedded_model_and_its_edit(workplace: Path) -> None:
    words = ["--dataset-metadata-path", "data/example_dataset", "--output-path", "run", "--max-steps", "2"]
    flags = ["--batch-size", "2", "--lora-rank", "4", "--height", "32", "--width", "32", "--save-steps", "1"]
    assert main(["train", "lora", *words, *flags]) == 0
    record = json.loads((workplace / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert record["step"] == 2 and record["loss"] > 0
    edit = ["--input", str(Path(__file__).parents[2] / "examples" / "table.png"), "--prompt", "push the ball"]
    lora = ["--lora-path", "run/step-1.safetensors", "--num-inference-steps", "1", "--output", "edit.png"]
    assert main(["edit", *edit, *lora, "--seed", "0"]) == 0


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--num-frames", "7"], 2, "--num-frames 7: 2 or 5 are pairs, 26 or 29"),
        (["--height", "32"], 2, "height is given alone"),
        (["--lora-base-model", "vae"], 2, "only the transformer"),
        (["--extra-inputs", "end_image"], 2, "the model takes input_image"),
        (["--lora-checkpoint", "none.safetensors"], 2, "there is no LoRA file none.safetensors"),
        (["--lora-target-modules", "qkv"], 2, "no linear layer of this model is named 'qkv'"),
        (["--lora-rank", "0"], 2, "rank 0"),
        (["--optimizer", "sgd2"], 2, "optimizer 'sgd2' is unknown"),
        (["--validation-share", "1"], 2, "validation share 1.0"),
        (["--dataset-repeat", "0"], 2, "--dataset-repeat 0 is below 1"),
        (["--model-paths", "[]"], 2, "shards of 0 models"),
        (["--base-precision", "int4"], 2, "nothing can be trained through int4 weights"),
        (["--report-to", "paper"], 2, "there is no tracker 'paper'"),
        (["--optimizer-args", "[1]"], 2, "expected an object"),
        (["--clip-share", "2"], 2, "clip_share 2.0 is not between 0 and 1"),
    ],
)
def test_what_is_refused(
    workplace: Path, flags: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset-metadata-path", "data/example_dataset", "--output-path", "run", *flags]
    assert main(["train", "lora", *words]) == code
    assert message in capsys.readouterr().err


def test_bad_data_is_named_before_training(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "data" / "example_dataset" / "videos" / "world_000001.mp4").write_bytes(b"x")
    assert main(["train", "lora", "--dataset-metadata-path", "data/example_dataset", "--output-path", "run"]) == 1
    assert "metadata.csv:3: " in capsys.readouterr().err
    assert not (workplace / "run" / "lora.safetensors").exists()


def test_the_plan_comes_first_and_what_cannot_fit_is_refused(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--dataset-metadata-path",
        "data/example_dataset",
        "--height",
        "32",
        "--width",
        "32",
        "--output-path",
        "run",
    ]
    words += ["--max-steps", "1", "--samples", "0", "--batch-size", "2"]
    with monkeypatch.context() as patch:
        patch.setattr("chronoedit.runtime.machine.free_bytes", lambda device: 1000)
        assert main(["train", "lora", *words]) == 1
    refused = capsys.readouterr().err
    assert "the plan for one process:" in refused and "error: this training needs about" in refused
    assert not (workplace / "run" / "recipe.json").exists()
    assert main(["train", "lora", *words]) == 0
    assert "1 steps in about" in capsys.readouterr().err
    page = (workplace / "run" / "report.html").read_text()
    assert "<svg" in page and "a LoRA of rank 32" in page


def test_ctrl_c_saves_and_the_same_command_goes_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset-metadata-path", "data/example_dataset", "--height", "32", "--width", "32", "--lora-rank", "2"]
    words += ["--max-steps", "4", "--num-frames", "5"]
    assert main(["train", "lora", *words, "--output-path", "whole"]) == 0
    step = LoraTrainer.step

    def interrupted(self: LoraTrainer, at: int, progress: float) -> dict[str, float]:
        if at == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, at, progress)

    with monkeypatch.context() as patch:
        patch.setattr(LoraTrainer, "step", interrupted)
        assert main(["train", "lora", *words, "--output-path", "cut"]) == 130
    assert "stopping after this step" in capsys.readouterr().err
    assert not Path("cut/lora.safetensors").exists()
    assert main(["train", "lora", *words, "--output-path", "cut"]) == 0
    one, two = load_file("whole/lora.safetensors"), load_file("cut/lora.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert json.loads(Path("cut/log.jsonl").read_text().splitlines()[-1])["step"] == 4


def test_killed_at_any_step_it_ends_the_same(workplace: Path) -> None:
    """kill -9 in the middle of a step, the same command again, and the same bits as a run that was left alone."""
    words = ["--dataset-metadata-path", "data/example_dataset", "--height", "32", "--width", "32", "--lora-rank", "2"]
    words += ["--max-steps", "12", "--num-frames", "5", "--checkpoint-every-s", "0", "--save-steps", "4"]
    command = [sys.executable, "-m", "chronoedit", "train", "lora", *words, "--output-path"]
    process = subprocess.Popen([*command, "cut"])
    deadline = time.monotonic() + 120
    while not Path("cut/step-4.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not Path("cut/lora.safetensors").exists()
    assert subprocess.run([*command, "cut"]).returncode == 0
    assert main(["train", "lora", *words, "--output-path", "whole"]) == 0
    one, two = load_file("whole/lora.safetensors"), load_file("cut/lora.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_folder_of_shards() -> None:
    shards = [[f"a/M/transformer/diffusion_pytorch_model-{k:05d}-of-00014.safetensors" for k in range(1, 15)], "t5.pth"]
    assert folder_of_shards(json.dumps(shards)) == Path("a/M")
    with pytest.raises(ValueError, match="is no JSON list"):
        folder_of_shards("a.safetensors")


def test_a_full_disk_keeps_the_last_checkpoint(workplace: Path) -> None:
    """A limit on the size of files stands for the disk: the state no longer fits, what was saved before stays."""
    words = ["train", "lora", "--dataset-metadata-path", "data/example_dataset", "--height", "32", "--width", "32"]
    words += ["--num-frames", "5", "--samples", "0", "--lora-rank", "4", "--output-path", "run", "--cache", "cache"]
    words += ["--num-epochs", "9"]
    assert main([*words, "--max-steps", "2"]) == 0
    before = {path: path.read_bytes() for path in Path("run").glob("*.safetensors")}
    assert len(before) == 2
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    limited += "from chronoedit.apps.main import main; sys.exit(main(sys.argv[1:]))"
    more = [*words, "--max-steps", "4"]
    found = subprocess.run([sys.executable, "-c", limited, *more], capture_output=True, text=True)
    assert found.returncode == 1 and "error: cannot write" in found.stderr and "Traceback" not in found.stderr
    assert {path: path.read_bytes() for path in Path("run").glob("*.safetensors")} == before
    assert not list(Path("run").glob(".*.safetensors"))
    assert main(more) == 0
