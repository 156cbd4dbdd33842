"""Recipes: the project's own load; what is wrong in one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronoedit.training.autoencoder import AutoencoderRecipe
from chronoedit.training.recipes import Budget, Optimisation, load_recipe, recipe_from_dict, recipe_to_dict
from chronoedit.training.trainer import EmbeddedRecipe

RECIPES = Path(__file__).parents[2] / "recipes"
KINDS = {"autoencoder": AutoencoderRecipe, "embedded": EmbeddedRecipe}


@pytest.mark.parametrize("size", ["cpu", "gpu"])
@pytest.mark.parametrize("name", KINDS)
def test_own_recipes_load_and_round_trip(size: str, name: str) -> None:
    recipe = load_recipe(RECIPES / size / f"{name}.toml", KINDS[name])
    assert recipe_from_dict(KINDS[name], recipe_to_dict(recipe)) == recipe
    assert recipe.data.first_seed + recipe.data.items + recipe.data.validation_items <= 100_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 1e-3, "speed": 2}, r"unknown speed; the keys are .*warmup_steps"),
        ({"learning_rate": "fast"}, r"learning_rate is 'fast'; expected float"),
        ({"learning_rate": True}, r"learning_rate is True; expected float"),
        ({"learning_rate": 1e-3, "batch_size": 1.5}, r"batch_size is 1.5; expected int"),
        ({}, r"learning_rate"),
        ({"learning_rate": -1.0}, r"must be positive"),
        ({"learning_rate": 1e-3, "precision": "fp8"}, r"choose one of fp32, bf16"),
        ({"learning_rate": 1e-3, "ema_decay": 1.0}, r"not in \[0, 1\)"),
        ({"learning_rate": 1e-3, "parts": 0}, r"parts 0"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_from_dict(Optimisation, values)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_recipe(tmp_path / "none.toml", Budget)
    (tmp_path / "bad.toml").write_text("max_steps = = 3")
    with pytest.raises(ValueError, match="is not TOML"):
        load_recipe(tmp_path / "bad.toml", Budget)
    (tmp_path / "nested.toml").write_text("data = 3\n")
    with pytest.raises(ValueError, match="data is 3; expected a table"):
        load_recipe(tmp_path / "nested.toml", EmbeddedRecipe)


def test_budget_counts_steps_and_minutes() -> None:
    assert Budget(max_steps=10).progress(5, 1e9) == 0.5
    assert Budget(max_minutes=2).progress(10**9, 30) == 0.25
    assert Budget(max_minutes=2, max_steps=4).progress(3, 30) == 0.75
    assert Budget(max_steps=10).progress(12, 0) == 1
    for values in ({}, {"max_steps": 0}, {"max_minutes": -1.0}):
        with pytest.raises(ValueError, match="positive max_minutes or max_steps"):
            Budget(**values)
