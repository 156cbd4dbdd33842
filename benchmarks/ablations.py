"""What each choice of the embedded model's training is worth: short trainings that differ in one thing.

All variants start from the same seed on the same latents, those of a training that was encoded before, run for the same
minutes one after the other, each with the schedule of so short a run, and are compared by the error of the velocity on
held-out pairs and clips, which no variant changes. A variant that was trained is not trained again; one that was
stopped goes on. Latent channels are compared by the autoencoder's own log, see `docs/training.md`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from chronoedit.training.recipes import load_recipe, recipe_from_dict, recipe_to_dict
from chronoedit.training.state import LOG_FILE
from chronoedit.training.trainer import EmbeddedRecipe, train_embedded
from pages import measured_by, table, update

VARIANTS: dict[str, dict[str, Any]] = {
    "as the recipe": {},
    "another seed": {"seed": 1},
    "clips in a tenth of the steps": {"flow": {"clip_share": 0.1}},
    "clips in half of the steps": {"flow": {"clip_share": 0.5}},
    "flow shift 3": {"flow": {"flow_shift": 3.0}},
    "no prompt dropped": {"flow": {"text_dropout": 0.0}},
    "no long prompts": {"flow": {"caption_share": 0.0}},
    "not asked where the edit is": {"flow": {"grounding_weight": 0.0}},
    "288 wide, 7 blocks": {"transformer": {"num_heads": 6, "ffn_dim": 1152, "num_layers": 7}},
    "144 wide, 14 blocks": {"transformer": {"num_heads": 3, "ffn_dim": 576, "num_layers": 14}},
    "batches of 16, clips of 4": {"optimisation": {"batch_size": 16}, "flow": {"clip_batch": 4}},
    "first weights that do not copy": {"transformer": {"copy_input": False}},
}
"""By name, what is other than in the recipe: of its tables the keys, and the seed."""

ERRORS = ("val_0.2", "val_0.5", "val_0.8", "val_1.0", "val_edit", "val_clips_0.8")
HEAD = ("variant", "steps", "σ = 0.2", "0.5", "0.8", "1.0", "edit frame, 1.0", "clips, 0.8")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which `variants` to train, for `minutes` each, on the latents of the training in `encoded`.

    `update` is a page with a part `ablations`.
    """

    encoded: Path = Path("out/embedded")
    autoencoder: Path = Path("out/autoencoder/autoencoder")
    recipe: Path = Path("recipes/cpu/embedded.toml")
    output: Path = Path("out/ablations")
    variants: tuple[str, ...] = tuple(VARIANTS)
    minutes: float = 8.0
    update: Path | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise ValueError(f"unknown variant {unknown[0]!r}; choose from {', '.join(VARIANTS)}")


def varied(recipe: EmbeddedRecipe, name: str, minutes: float) -> EmbeddedRecipe:
    """The recipe of a variant, for so many minutes, validated at their end."""
    values = recipe_to_dict(recipe)
    for key, other in {**VARIANTS[name], "budget": {"max_minutes": minutes, "max_steps": None}}.items():
        values[key] = {**values[key], **other} if isinstance(other, dict) else other
    values["optimisation"] |= {"validate_every_s": 60 * minutes, "checkpoint_every_s": 120.0}
    return recipe_from_dict(EmbeddedRecipe, values)


def train(options: Options, name: str) -> dict[str, Any]:
    """The last line of a variant's log, after training it."""
    folder = options.output / name.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    if (done := last_line(folder)) and done["minutes"] >= options.minutes:
        return done
    latents = folder / "latents"
    if not latents.exists():
        latents.symlink_to((options.encoded / "latents").resolve(), target_is_directory=True)
    recipe = varied(load_recipe(options.recipe, EmbeddedRecipe), name, options.minutes)
    train_embedded(recipe, autoencoder=options.autoencoder, folder=folder, device=torch.device("cpu"), log=say)
    return last_line(folder)


def last_line(folder: Path) -> dict[str, Any]:
    """That of a training's log; empty where there is none."""
    log = folder / LOG_FILE
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return json.loads(lines[-1]) if lines else {}


def say(record: Mapping[str, Any]) -> None:
    """Print a record of a log, beside the output."""
    print(json.dumps(record), file=sys.stderr)


def line(name: str, found: Mapping[str, Any]) -> list[str]:
    """A variant's row of the table."""
    return [name, str(found["step"]), *(f"{found[key]:.3f}" for key in ERRORS)]


def main(options: Options) -> None:
    """Train the variants and print their table."""
    torch.set_num_threads(1)
    rows = [line(name, train(options, name)) for name in options.variants]
    show(f"Each variant: {options.minutes:g} minutes.", table(HEAD, rows), options.update, "ablations")


def show(measured: str, rows: str, page: Path | None, name: str) -> None:
    """Print a table and how it was measured, and put both into the page's part of that name."""
    text = measured_by(measured) + "\n" + rows + "\n"
    print(text)
    if page is not None:
        update(page, text, name)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
