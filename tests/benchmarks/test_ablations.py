"""Short trainings that differ in one thing: what differs, and their table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ablations
from chronoedit.training.recipes import Budget, load_recipe, recipe_to_dict
from chronoedit.training.trainer import EmbeddedRecipe

RECIPE = Path(__file__).resolve().parents[2] / "recipes/cpu/embedded.toml"


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Keys of tables with their table's name before them."""
    tables = {key: value if isinstance(value, dict) else {"": value} for key, value in values.items()}
    return {f"{table}.{key}": value for table, keys in tables.items() for key, value in keys.items()}


@pytest.mark.parametrize("name", ablations.VARIANTS)
def test_a_variant_differs_in_its_own_keys_alone(name: str) -> None:
    recipe = load_recipe(RECIPE, EmbeddedRecipe)
    plain = recipe_to_dict(ablations.varied(recipe, "as the recipe", 3.0))
    other = recipe_to_dict(ablations.varied(recipe, name, 3.0))
    changed = {key: value for key, value in flat(other).items() if value != flat(plain)[key]}
    assert changed == flat(ablations.VARIANTS[name])
    assert ablations.varied(recipe, name, 3.0).budget == Budget(max_minutes=3.0)


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown variant 'wider'; choose from as the recipe"):
        ablations.Options(variants=("wider",))


def test_the_table_has_a_row_a_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trained(recipe: EmbeddedRecipe, *, folder: Path, **_: object) -> None:
        share = recipe.flow.clip_share
        record = {"step": 7, "minutes": 8.01, **dict.fromkeys(ablations.ERRORS, share)}
        (folder / "log.jsonl").write_text(json.dumps({"step": 1}) + "\n" + json.dumps(record) + "\n")

    monkeypatch.setattr(ablations, "train_embedded", trained)
    page = tmp_path / "page.md"
    page.write_text("<!-- ablations: begin -->\n<!-- ablations: end -->\n")
    (tmp_path / "run" / "latents").mkdir(parents=True)
    variants = ("as the recipe", "clips in a tenth of the steps")
    options = ablations.Options(
        encoded=tmp_path / "run", recipe=RECIPE, output=tmp_path / "out", variants=variants, update=page
    )
    ablations.main(options)
    monkeypatch.delattr(ablations, "train_embedded")
    ablations.main(options)  # trained already
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    share = load_recipe(RECIPE, EmbeddedRecipe).flow.clip_share
    assert rows[-2:] == [
        "| as the recipe | 7 |" + f" {share:.3f} |" * 6,
        "| clips in a tenth of the steps | 7 |" + " 0.100 |" * 6,
    ]
    assert (tmp_path / "out" / "as_the_recipe" / "latents").resolve() == tmp_path / "run" / "latents"
    capsys.readouterr()
