"""The README says nothing that is not so: its commands are run here, word for word, and its links lead somewhere.

The commands for the published weights run on a random checkpoint of the same layout, put where the README puts them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.apps.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHECKPOINT = "checkpoints/ChronoEdit-14B-Diffusers"
TRAINING = "checkpoints/ChronoEdit-14B/iter_000010000/model"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The README's command lines of one program, as words; `.venv/bin/` before it is left out."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line[0].removeprefix(".venv/bin/") == program]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the repository's examples, a photo, and a random checkpoint where the published one would be."""
    from chronoedit.model.random_checkpoint import write_random_checkpoint

    folder = tmp_path_factory.mktemp("newcomer")
    shutil.copytree(ROOT / "examples", folder / "examples")
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    write_random_checkpoint(folder / CHECKPOINT)
    write_training_checkpoint(folder / TRAINING, folder / CHECKPOINT)
    write_lora(folder / CHECKPOINT / "lora" / "chronoedit_distill_lora.safetensors")
    for name in ("lora", "other"):
        write_lora(folder / f"{name}.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def write_training_checkpoint(path: Path, model: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from safetensors.torch import load_file

    weights = load_file(model / "transformer" / "diffusion_pytorch_model.safetensors")
    dcp.save({f"net.{name}": tensor for name, tensor in weights.items()}, checkpoint_id=path, no_dist=True)


def write_lora(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    stem = "transformer.blocks.0.attn1.to_q"  # 96 wide in the random checkpoint
    shapes = {f"{stem}.lora_A.weight": (4, 96), f"{stem}.lora_B.weight": (96, 4)}
    save_file({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, path)


def written_files(words: list[str], folder: Path) -> list[Path]:
    """What the command promises to write."""
    if "--output" not in words:
        return []
    output = folder / words[words.index("--output") + 1]
    return [output, output.with_suffix(".png")] if output.suffix == ".mp4" else [output]


@pytest.mark.parametrize("words", commands("chronoedit"), ids=lambda words: " ".join(words[1:3]))
def test_chronoedit_commands_run(words: list[str], newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words[1:]) == 0, capsys.readouterr().err
    for path in written_files(words, newcomer):
        assert path.exists(), f"{path} was promised"


@pytest.mark.parametrize("words", commands("torchrun"), ids=lambda words: " ".join(words[5:7]))
def test_commands_on_several_processes_run(words: list[str], newcomer: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=newcomer, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (newcomer / done.stdout.splitlines()[-1]).exists()


def test_an_edit_repeated_is_the_same(newcomer: Path) -> None:
    first, second = newcomer / "out/table.png", newcomer / "out/again.png"
    if not (first.exists() and second.exists()):
        pytest.fail("run this file whole: the README's commands write these pictures")
    assert (np.asarray(Image.open(first)) == np.asarray(Image.open(second))).all()


def test_python_example_runs(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = blocks("python")
    exec(compile(source, "README.md", "exec"), {"__name__": "readme"})
    assert Image.open(newcomer / "after.png").size == (128, 128)
    frames = int(capsys.readouterr().out.split(",")[0].removeprefix("("))
    assert frames > 5


@pytest.mark.parametrize("words", commands("make"), ids=lambda words: words[1])
def test_make_targets_exist(words: list[str]) -> None:
    if shutil.which("make") is None:
        pytest.skip("this machine has no make")
    plan = subprocess.run(["make", "-C", str(ROOT), "--dry-run", *words[1:]], capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr
    scripts = re.findall(r"python (\S+\.py)", plan.stdout)
    assert all((ROOT / script).is_file() for script in scripts)
    assert scripts or "-m pytest" in plan.stdout


def test_install_commands_name_what_exists() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    (venv,) = commands("python3")
    assert venv[1:3] == ["-m", "venv"]
    installs = commands("pip")
    assert installs[0][2] in constraints.splitlines()  # torch, pinned, goes first
    for words in installs:
        assert words[1] == "install"
        for option, value in zip(words, words[1:], strict=False):
            assert option != "-c" or (ROOT / value).is_file()
            assert option != "-e" or (ROOT / value.partition("[")[0] / "pyproject.toml").is_file()


def test_the_download_goes_where_the_commands_look() -> None:
    (words,) = commands("hf")
    assert words == ["hf", "download", "nvidia/ChronoEdit-14B-Diffusers", "--local-dir", CHECKPOINT]
    runs = [line for line in commands("chronoedit") if line[1] != "plan"]  # which knows that model by its name
    models = [line[line.index("--model-path") + 1] for line in runs if "--model-path" in line]
    assert models and set(models) == {f"./{CHECKPOINT}"}


def test_every_shell_line_is_checked() -> None:
    known = ("chronoedit", "make", "pip", "python3", "hf", "torchrun")
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    assert len(lines) == sum(len(commands(program)) for program in known)


@pytest.mark.parametrize(
    "page", ["README.md", "examples/README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    missing = [target for target in targets if not ((ROOT / page).parent / target).exists()]
    assert missing == []
