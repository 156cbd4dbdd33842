"""What more channels a latent cell bring to the autoencoder's pictures: short trainings that differ in nothing else.

All begin from the same seed on the same pictures and run for the same minutes one after the other, on single frames
alone, each with the schedule of so short a run. One that was trained is not trained again; one that was stopped goes
on. What more channels cost the transformer, which has as many more to draw, is not measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from ablations import last_line, say, show
from chronoedit.training.autoencoder import AutoencoderRecipe, train_frames
from chronoedit.training.recipes import load_recipe, recipe_from_dict, recipe_to_dict
from pages import table

HEAD = ("channels", "values a pixel", "steps", "pictures, dB", "near edges, dB", "latents disturbed, dB")
SCORES = ("psnr", "psnr_detail", "psnr_noisy")
PIXELS_A_CELL = 64


@dataclass(frozen=True, kw_only=True)
class Options:
    """How many `channels` to compare, for `minutes` each.

    `update` is a page with a part `latent channels`.
    """

    channels: tuple[int, ...] = (8, 16, 24)
    minutes: float = 12.0
    recipe: Path = Path("recipes/cpu/autoencoder.toml")
    output: Path = Path("out/latent_channels")
    update: Path | None = None


def varied(recipe: AutoencoderRecipe, channels: int, minutes: float) -> AutoencoderRecipe:
    """The recipe with so many latent channels, for so many minutes, validated at their end."""
    values = recipe_to_dict(recipe)
    values["model"]["z_dim"] = channels
    values["frames"]["budget"] = {"max_minutes": minutes, "max_steps": None}
    values["frames"]["optimisation"] |= {"validate_every_s": 60 * minutes, "checkpoint_every_s": 120.0}
    return recipe_from_dict(AutoencoderRecipe, values)


def train(options: Options, channels: int) -> dict[str, Any]:
    """The last line of its log, after training it."""
    folder = options.output / f"{channels}_channels"
    folder.mkdir(parents=True, exist_ok=True)
    if (done := last_line(folder / "frames")) and done["minutes"] >= options.minutes:
        return done
    pictures = options.output / "data"  # drawn once
    pictures.mkdir(exist_ok=True)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(pictures.resolve(), target_is_directory=True)
    recipe = varied(load_recipe(options.recipe, AutoencoderRecipe), channels, options.minutes)
    train_frames(recipe, folder, torch.device("cpu"), say)
    return last_line(folder / "frames")


def line(channels: int, found: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    scores = (f"{found[key]:.2f}" for key in SCORES)
    return [str(channels), f"{channels / PIXELS_A_CELL:.3g}", str(found["step"]), *scores]


def main(options: Options) -> None:
    """Train them and print their table."""
    torch.set_num_threads(1)
    rows = [line(channels, train(options, channels)) for channels in options.channels]
    show(f"Each: {options.minutes:g} minutes.", table(HEAD, rows), options.update, "latent channels")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
