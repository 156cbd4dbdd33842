"""Flags from a TOML file: headings are for the reader, the command line goes before, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import tyro

from chronoedit.apps.full_training import TrainFull
from chronoedit.apps.lora_training import TrainLora
from chronoedit.apps.main import main
from chronoedit.apps.recipe_file import with_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.toml"


def test_its_flags_are_added(recipe: Path) -> None:
    recipe.write_text(
        "lora_rank = 8\nfresh = true\nuse-gradient-checkpointing = false\n[run]\nlearning-rate = 1e-3\nseed = -1\n"
        "[run.optimizer_args]\nmomentum = 0.9\n"
    )
    words = with_recipe(["train", "lora", "--config", str(recipe), "--lora_rank", "4"])
    assert words[4:] == [
        "--lora_rank", "4", "--fresh", "--learning-rate", "0.001", "--seed=-1", "--optimizer-args", '{"momentum": 0.9}'
    ]  # fmt: skip
    assert with_recipe(["train", f"--config={recipe}"])[2] == "--lora-rank"
    assert with_recipe(["train", "lora"]) == ["train", "lora"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "is not TOML"),
        ("seed = 1\n[more]\nseed = 2", "says seed twice"),
        ("since = 2020-01-01", "expected a number, a string"),
        ("lora_rnak = 8", "lora-rnak"),
    ],
)
def test_mistakes_are_named(recipe: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(text)
    words = ["--dataset-metadata-path", "data", "--output-path", "run", "--config", str(recipe)]
    assert main(["train", "lora", *words]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert main(["train", "lora", "--config", "none.toml"]) == 2


@pytest.mark.parametrize(("name", "kind"), [("lora", TrainLora), ("full", TrainFull)])
def test_the_recipes_of_this_project_are_flags(name: str, kind: type[TrainLora | TrainFull]) -> None:
    path = Path(__file__).parents[2] / "recipes" / "finetune" / f"{name}.toml"
    words = with_recipe(["--config", str(path), "--dataset-metadata-path", "set", "--output-path", "out"])
    command = tyro.cli(kind, args=words, config=(tyro.conf.OmitArgPrefixes,))
    assert command.training.config == path and command.sizes.num_frames == 29
    assert command.model.model_path == "nvidia/ChronoEdit-14B-Diffusers"
