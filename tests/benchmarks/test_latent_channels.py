"""Short trainings of the autoencoder that differ in the channels of a latent cell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import latent_channels
from chronoedit.training.autoencoder import AutoencoderRecipe
from chronoedit.training.recipes import load_recipe, recipe_to_dict

RECIPE = Path(__file__).resolve().parents[2] / "recipes/cpu/autoencoder.toml"


def test_recipes_differ_in_their_channels_alone() -> None:
    recipe = load_recipe(RECIPE, AutoencoderRecipe)
    few, many = (recipe_to_dict(latent_channels.varied(recipe, channels, 3.0)) for channels in (8, 24))
    assert (few["model"].pop("z_dim"), many["model"].pop("z_dim")) == (8, 24)
    assert few == many
    assert few["frames"]["budget"]["max_minutes"] == 3.0


def test_the_table_has_a_row_for_each_and_pictures_are_drawn_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trained(recipe: AutoencoderRecipe, folder: Path, *_: object) -> None:
        (folder / "data" / "drawn").touch()
        (folder / "frames").mkdir()
        record = {"step": 7, **dict.fromkeys(latent_channels.SCORES, recipe.model.z_dim + 0.25)}
        (folder / "frames" / "log.jsonl").write_text(json.dumps({"step": 1}) + "\n" + json.dumps(record) + "\n")

    monkeypatch.setattr(latent_channels, "train_frames", trained)
    page = tmp_path / "page.md"
    page.write_text("<!-- latent channels: begin -->\n<!-- latent channels: end -->\n")
    latent_channels.main(latent_channels.Options(channels=(8, 16), recipe=RECIPE, output=tmp_path / "out", update=page))
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    assert rows[-2:] == ["| 8 | 0.125 | 7 | 8.25 | 8.25 | 8.25 |", "| 16 | 0.25 | 7 | 16.25 | 16.25 | 16.25 |"]
    assert [path.name for path in (tmp_path / "out/data").iterdir()] == ["drawn"]
    capsys.readouterr()
