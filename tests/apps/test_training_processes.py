"""`torchrun -m chronoedit train lora|full`: two processes, killed at some step, end with the bits of a whole run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from chronoedit.apps.main import main
from chronoedit.data.export import Export, export_world
from chronoedit.training.sharded import finished

SET = ["--dataset-metadata-path", "data", "--height", "32", "--width", "32"]
RUN = ["--max-steps", "12", "--checkpoint-every-s", "0", "--samples", "0", "--cache", "cache", "--num-epochs", "100"]
KINDS = {
    "lora": (["train", "lora", "--lora-rank", "2"], "lora.safetensors"),
    "full": (["train", "full", "--learning-rate", "1e-3"], "model/transformer/diffusion_pytorch_model.safetensors"),
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    export_world(Export(count=4, clip_share=0.25, size_px=32), tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(words: list[str], processes: int) -> subprocess.Popen[bytes]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*(launcher if processes > 1 else [sys.executable]), "-m", "chronoedit", *words]
    return subprocess.Popen(command, env=environment)


def kill_once(there: Path, process: subprocess.Popen[bytes]) -> None:
    """kill -9 all processes when a file is there."""
    deadline = time.monotonic() + 180
    while not there.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    launched = psutil.Process(process.pid)
    for each in [*launched.children(recursive=True), launched]:  # a launcher's workers are of other sessions
        each.kill()
    process.wait()
    assert there.exists()


@pytest.mark.parametrize(("kind", "processes"), [("lora", 2), ("full", 2), ("full", 1)])
def test_killed_at_any_step_it_ends_the_same(workplace: Path, kind: str, processes: int) -> None:
    command, result = KINDS[kind]
    words = [*command, *SET, *RUN, "--batch-size", "1" if processes == 2 else "2"]
    sign = "cut/step-4.safetensors" if kind == "lora" else "cut/checkpoints/step-4/.metadata"
    kill_once(Path(sign), start([*words, "--save-steps", "4", "--output-path", "cut"], processes))
    assert not (Path("cut") / result).exists()
    assert start([*words, "--save-steps", "4", "--output-path", "cut"], processes).wait() == 0
    assert start([*words, "--output-path", "whole"], processes).wait() == 0
    one, two = load_file(Path("whole") / result), load_file(Path("cut") / result)
    assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)
    if kind == "full":
        assert [path.name for path in finished(Path("cut"))] == ["step-4", "step-8", "step-12"]


def test_full_in_one_process_and_its_edit(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Path("recipe.toml")
    recipe.write_text('num-epochs = 100\n[data]\ndataset_metadata_path = "data"\nheight = 32\nwidth = 32\n')
    words = ["train", "full", "--config", "recipe.toml", "--output-path", "run", "--batch-size", "2", "--samples", "0"]
    assert main([*words, "--max-steps", "2"]) == 0
    assert capsys.readouterr().out.strip() == "run/model"
    picture = str(Path(__file__).parents[2] / "examples" / "table.png")
    edit = ["--input", picture, "--prompt", "push the ball", "--num-inference-steps", "1", "--output", "edit.png"]
    assert main(["edit", "--model-path", "run/model", *edit]) == 0
    words[words.index("run")] = "other"
    assert main([*words, "--max-steps", "3", "--strategy", "fsdp"]) == 2
    assert "strategy fsdp needs several processes" in capsys.readouterr().err
    assert main([*words, "--context-parallel", "2"]) == 2
    assert "--context-parallel 2 needs several processes" in capsys.readouterr().err
    assert main([*words, "--max-steps", "1", "--fresh", "--learning-rate", "1e-4"]) == 0


def test_accelerate_launches_it(workplace: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    settings = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words = ["train", "lora", *SET, "--max-steps", "1", "--samples", "0", "--output-path", "run"]
    assert subprocess.run([*launcher, *settings, "-m", "chronoedit", *words]).returncode == 0
    assert Path("run/lora.safetensors").is_file()
