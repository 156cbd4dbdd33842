"""`torchrun -m chronoedit batch`: processes share a manifest; one is killed, all are killed, their number changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from chronoedit import media
from chronoedit.apps.launch import own_device
from chronoedit.apps.main import main

torch = pytest.importorskip("torch")

COUNT = 12


@pytest.fixture
def words(random_checkpoint_no_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A batch of 12 edits, every third of them larger, one by one; without its --output."""
    monkeypatch.chdir(tmp_path)
    coarse = np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)
    Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save("cat.png")
    rows = [f"cat.png,add {k} hats,{k},{k},{64 if k % 3 else 128}" for k in range(COUNT)]
    Path("edits.csv").write_text("\n".join(["image,prompt,key,seed,height", *rows, ""]))
    return ["batch", "edits.csv", "--batch-size", "1", "--model-path", str(random_checkpoint_no_image)]


def start(words: list[str], processes: int) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, "-m", "chronoedit", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def keys(folder: str, pattern: str = "results*.jsonl") -> list[str]:
    texts = [path.read_text() for path in Path(folder).glob(pattern)]
    return [json.loads(line)["key"] for text in texts for line in text.splitlines(keepends=True) if line[-1:] == "\n"]


def pixels(folder: str) -> dict[str, bytes]:
    return {path.stem: np.asarray(media.load_image(path)).tobytes() for path in Path(folder).glob("*-*.png")}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)


def ranks(process: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """The launched processes, by rank."""
    children = psutil.Process(process.pid).children(recursive=True)
    return {int(child.environ()["RANK"]): child for child in children if "RANK" in child.environ()}


def test_two_processes_do_the_batch_of_one(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    process = start([*words, "-o", "two", "--num-inference-steps", "2", "--sheet", "--verbose"], 2)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert sorted(out.split()) == sorted([f"two/cat-{k}.png" for k in range(COUNT)] + ["two/sheet.png"])
    assert err.count("opening ") == 2 and f"{COUNT} of {COUNT} edits done, " in err  # both loaded, the first tells
    assert sorted(keys("two")) == sorted(f"cat-{k}" for k in range(COUNT)) == sorted(keys("two", "results.jsonl"))
    assert main([*words, "-o", "one", "--num-inference-steps", "2"]) == 0
    one, two = pixels("one"), pixels("two")
    assert one.keys() == two.keys()
    for name, data in two.items():  # they may compute with another number of threads
        assert np.abs(np.frombuffer(data, np.uint8).astype(int) - np.frombuffer(one[name], np.uint8)).max() <= 1


def test_killed_ones_lose_and_double_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words += ["-o", "out", "--num-inference-steps", "40"]
    first = start(words, 2)
    wait_for(lambda: len(keys("out")) >= 2, first)
    ranks(first)[1].kill()
    first.communicate(timeout=180)
    done = keys("out")
    assert first.returncode not in (0, None) and 2 <= len(done) < COUNT and len(done) == len(set(done))
    second = start(words, 3)
    wait_for(lambda: len(keys("out")) >= len(done) + 2, second)
    for each in [*ranks(second).values(), psutil.Process(second.pid)]:
        each.kill()
    second.communicate(timeout=180)
    killed = keys("out")
    assert set(done) < set(killed) and len(killed) < COUNT
    capsys.readouterr()
    assert main(words) == 0
    assert f"{COUNT} of {COUNT} edits done, {len(set(killed))} of them before" in capsys.readouterr().err
    assert sorted(keys("out")) == sorted(keys("out", "results.jsonl")) == sorted(f"cat-{k}" for k in range(COUNT))


@pytest.mark.parametrize(
    ("name", "gpus", "here", "expected"),
    [
        (None, 0, "4", None),
        (None, 4, "4", "cuda:1"),
        ("cuda", 4, "2", "cuda:1"),
        ("cuda:0", 2, "2", "cuda:1"),
        ("cpu", 2, "4", "cpu"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, name: str | None, gpus: int, here: str, expected: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    environment = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": here, "LOCAL_RANK": "1"}
    assert own_device(name, environment) == expected
    assert own_device(name, {}) == name


@pytest.mark.parametrize("command", ["batch", "edit"])
def test_more_processes_than_gpus_are_refused(
    words: list[str], command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launched = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "0", "RANK": "0"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    edit = ["edit", "-i", "cat.png", "-p", "go", "-o", "out.png", "--memory", "off", *words[-2:]]
    assert main([*words, "-o", "out"] if command == "batch" else edit) == 2
    assert "4 processes were started on this machine, which has 2 GPUs; start --nproc_per_node=2" in (
        capsys.readouterr().err
    )
    assert not Path("out").exists()


def test_ray_and_torchrun_are_one_too_many(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*words, "-o", "out", "--ray", "local"]) == 2
    assert "--ray shares the work out itself" in capsys.readouterr().err
