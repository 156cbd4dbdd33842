"""`chronoedit eval world` with editors that are not ours, by several processes, killed, and compared on a page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from PIL import Image

from chronoedit.apps.main import main
from chronoedit.apps.world_workers import check_workers
from chronoedit.evaluation.run import read_records
from chronoedit.model.checkpoint import write_random_checkpoint
from chronoedit.world import sample_item

ITEMS = 10


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    for seed in (100_000, 100_001):
        Image.fromarray(sample_item(seed).input).save(folder / f"{seed}.png")
    return folder


def test_a_folder_and_a_command_are_compared_on_a_page(
    copies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "world", "--items", "2", "--editor"]
    assert main([*words, str(copies), "-o", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    assert "teleport" in printed and "oracle" not in printed
    assert printed.split()[-1] == str(tmp_path / "a" / "report.html")
    assert main([*words, "cp {input} {output}", "-o", str(tmp_path / "b")]) == 0
    a, b = (read_records(tmp_path / name) for name in "ab")
    for of_a, of_b in zip(a, b, strict=True):
        assert of_a["rows"]["model"]["checks"] == of_b["rows"]["model"]["checks"] == of_a["rows"]["copy"]["checks"]
    page = tmp_path / "page.html"
    assert main(["eval", "compare", "--a", str(tmp_path / "a"), "--b", str(tmp_path / "b"), "-o", str(page)]) == 0
    assert "(A) less" in page.read_text(encoding="utf-8")
    assert main(["eval", "compare", "--a", str(tmp_path / "a"), "--b", str(tmp_path / "b"), "-o", "page.txt"]) == 2
    assert ".html" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--editor", "nowhere"], "no folder and no command"),
        (["--editor", "cp {input}"], "no {output}"),
        (
            ["--editor", "cp {input} {output}", "--both", "--lora-path", "x", "--device", "cpu"],
            "--both, --lora-path, --d",
        ),
        (["--editor", "cp {input} {output}", "--trajectory"], "--trajectory: for a model of ours"),
        (["--split", "unseen"], "held-out-phrasing"),
        (["--workers", "0"], "--workers 0 is below 1"),
    ],
)
def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["eval", "world", *words, "--items", "1", "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_command_that_fails_is_kept_with_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "world", "--items", "1", "-o", str(tmp_path), "--editor"]
    assert main([*words, "ls /nowhere {input} {output}"]) == 0
    (record,) = read_records(tmp_path)
    assert "exit code" in record["rows"]["model"]["error"] and not record["rows"]["model"]["success"]
    assert not (tmp_path / "gallery.png").exists()
    assert "Items without a picture: 1" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_workers_of_a_model_do_what_one_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "model", image_branch=False)
    words = ["eval", "world", "--model", str(checkpoint), "--items", "2", "--num-inference-steps", "1"]
    words += ["--batch-size", "1", "--device", "cpu"]
    assert main([*words, "-o", str(tmp_path / "one")]) == 0
    assert main([*words, "-o", str(tmp_path / "two"), "--workers", "2"]) == 0
    one, two = (read_records(tmp_path / name) for name in ("one", "two"))
    for of_one, of_two in zip(one, two, strict=True):
        assert of_two["rows"]["model"].pop("time_s") > 0 and of_one["rows"]["model"].pop("time_s") > 0
        assert of_one["rows"]["model"]["checks"] == of_two["rows"]["model"]["checks"]
        assert of_one["rows"]["copy"] == of_two["rows"]["copy"] and "oracle" in of_two["rows"]


def test_workers_do_not_share_a_gpu() -> None:
    check_workers(1, "cuda")
    check_workers(4, "cpu")
    with pytest.raises(ValueError, match="cores of a CPU"):
        check_workers(2, "cuda")


@pytest.mark.skipif(os.name != "posix", reason="it kills a process as POSIX does")
def test_a_killed_run_loses_and_doubles_nothing(tmp_path: Path) -> None:
    slow = tmp_path / "slow.sh"
    slow.write_text('sleep 0.3; cp "$1" "$2"\n')
    out = tmp_path / "out"
    words = ["eval", "world", "--items", str(ITEMS), "--batch-size", "1", "--workers", "2", "-o", str(out)]
    words += ["--editor", f"sh {slow} {{input}} {{output}}"]
    process = subprocess.Popen([sys.executable, "-m", "chronoedit", *words], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(keys(out)) < 3 and process.poll() is None:
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    done = keys(out)
    assert 3 <= len(done) < ITEMS and max(Counter(done).values()) == 1
    assert psutil.wait_procs(workers, timeout=30)[1] == []  # none is left behind
    assert keys(out) == done
    assert main(words) == 0
    assert keys(out)[: len(done)] == done and sorted(keys(out)) == [str(100_000 + k) for k in range(ITEMS)]


def keys(folder: Path) -> list[str]:
    path = folder / "items.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["key"] for line in lines if line.endswith("\n")]
