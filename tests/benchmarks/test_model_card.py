"""The model card: every figure in it is that of the run that it is made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import model_card as benchmark
from chronoedit.editing.loading import load
from chronoedit.evaluation.run import WorldRun, read_records, run_world
from chronoedit.model.random_checkpoint import write_random_checkpoint
from chronoedit.world.splits import BY_TURNS, SPLITS

TINY = Path(__file__).parents[2] / "src/chronoedit/weights/tiny"
ITEMS = 7


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> benchmark.Card:
    """A card of a random model's run, in a folder with the embedded weights."""
    folder = tmp_path_factory.mktemp("card")
    editor = load(write_random_checkpoint(folder / "random", image_branch=False))
    run = WorldRun(items=ITEMS, split=BY_TURNS, reasoning="both", num_inference_steps=2, model={"name": "random"})
    run_world(lambda: editor, run, folder / "run")
    shutil.copytree(TINY, folder / "tiny")
    for name in ("README.md", "successes.png", "failures.png"):
        (folder / "tiny" / name).unlink(missing_ok=True)
    readme = folder / "page.md"
    readme.write_text("# Page\n<!-- what it reaches: begin -->\nold\n<!-- what it reaches: end -->\n")
    made = benchmark.Card(run=folder / "run", readme=readme, folder=folder / "tiny")
    benchmark.main(made)
    return made


def rows(text: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}


def test_tables_show_the_run_by_split_family_and_edit(card: benchmark.Card) -> None:
    text = (card.folder / "README.md").read_text()
    summary = json.loads((card.run / "summary.json").read_text())
    found = rows(text.split("## What reasoning changes")[0])
    for row, column in (("model", 0), ("no_reasoning", 1), ("copy", 2), ("teleport", 3), ("oracle", 4)):
        assert found["all items"][column].startswith(f"{summary[row]['overall']['success']:.1%} (")
        for split, group in summary["splits"][row].items():
            assert found[split][column].startswith(f"{group['success']:.1%} (")
    assert found["all items"][-1] == str(ITEMS)
    assert set(SPLITS) <= found.keys()  # seven items take all splits in turn
    assert set(summary["edits"]["model"]) <= {name.replace(" ", "_") for name in found}
    assert {record["family"] for record in read_records(card.run)} <= found.keys()


def test_reasoning_is_compared_in_pairs(card: benchmark.Card) -> None:
    text = (card.folder / "README.md").read_text()
    found = rows(text.split("## What reasoning changes")[1])
    assert found["all items"][1] == str(ITEMS)
    assert int(found["families that move"][1]) + int(found["the other families"][1]) == ITEMS
    assert "<!-- card: begin -->" in text and text.index("<!-- card: end -->") < text.index("## Limits")


def test_pictures_are_the_first_of_each_family(card: benchmark.Card) -> None:
    records = read_records(card.run)
    for success in (True, False):
        chosen = benchmark.first_of_each_family(records, success=success)
        assert all(each["rows"]["model"]["success"] is success for each in chosen)
        assert len({each["family"] for each in chosen}) == len(chosen)
        for each in chosen:
            earlier = [r for r in records if r["family"] == each["family"] and r["seed"] < each["seed"]]
            assert all(r["rows"]["model"]["success"] is not success for r in earlier)
    assert (card.folder / "successes.png").is_file() and (card.folder / "failures.png").is_file()


def test_readme_says_what_it_reaches(card: benchmark.Card) -> None:
    assert card.readme is not None
    text = card.readme.read_text()
    assert "old" not in text and f"Of {ITEMS} scenes" in text and "| hard |" in text
    assert "teleport" not in text
