"""`chronoedit train`: a LoRA, all weights, or the embedded model from an empty folder, by recipes that resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from chronoedit.apps.full_training import TrainFull
from chronoedit.apps.lora_training import TrainLora
from chronoedit.apps.options import option
from chronoedit.apps.progress import print_record

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class TrainAutoencoder:
    """Train the small world's autoencoder; the same command goes on where it stopped."""

    recipe: Annotated[Path, option("a recipe, such as recipes/cpu/autoencoder.toml", shown="FILE")]
    output: Annotated[Path, option("state, log, and at the end autoencoder/", shown="DIR", short="o")]
    device: Annotated[str | None, option("cpu or cuda; by default cuda where there is one", shown="NAME")] = None
    threads: Annotated[int | None, option("threads of the CPU", shown="N")] = None

    def run(self) -> None:
        """Train and say where the autoencoder is."""
        from chronoedit.training.autoencoder import AutoencoderRecipe, train_autoencoder
        from chronoedit.training.recipes import load_recipe

        recipe = load_recipe(self.recipe, AutoencoderRecipe)
        _set_threads(self.threads)
        print(train_autoencoder(recipe, self.output, _device(self.device), print_record))


@dataclass(frozen=True, kw_only=True)
class TrainEmbedded:
    """Train the embedded model's transformer and text encoder; the same command goes on where it stopped."""

    recipe: Annotated[Path, option("a recipe, such as recipes/cpu/embedded.toml", shown="FILE")]
    autoencoder: Annotated[Path, option("what train autoencoder wrote: OUTPUT/autoencoder", shown="DIR")]
    output: Annotated[Path, option("latents, state, log, and model/ at each checkpoint", shown="DIR", short="o")]
    device: Annotated[str | None, option("cpu or cuda; by default cuda where there is one", shown="NAME")] = None
    threads: Annotated[int | None, option("threads of the CPU", shown="N")] = None

    def run(self) -> None:
        """Train and say where the model is."""
        from chronoedit.training.recipes import load_recipe
        from chronoedit.training.trainer import EmbeddedRecipe, train_embedded

        recipe = load_recipe(self.recipe, EmbeddedRecipe)
        if not (self.autoencoder / "config.json").is_file():
            raise ValueError(f"{self.autoencoder} holds no autoencoder; give the folder that train autoencoder wrote")
        _set_threads(self.threads)
        print(
            train_embedded(
                recipe, autoencoder=self.autoencoder, folder=self.output, device=_device(self.device), log=print_record
            )
        )


COMMANDS: dict[str, type[Any]] = {
    "train lora": TrainLora,
    "train full": TrainFull,
    "train autoencoder": TrainAutoencoder,
    "train embedded": TrainEmbedded,
}


def _device(name: str | None) -> torch.device:
    import torch

    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _set_threads(count: int | None) -> None:
    import torch

    if count is not None:
        if count < 1:
            raise ValueError(f"--threads {count}: at least 1 is needed")
        torch.set_num_threads(count)
