"""The embedded model as it ships: small, bf16, documented, and an editor that reads nothing but picture and words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import chronoedit
from chronoedit.evaluation.physics import score
from chronoedit.world import sample_item

FOLDER = Path(chronoedit.__file__).parent / "weights" / "tiny"
LIMIT_BYTES = 64 * 1024**2


@pytest.fixture(scope="module")
def editor() -> chronoedit.Editor:
    return chronoedit.load("tiny")


def test_weights_are_bf16_and_small() -> None:
    files = sorted(FOLDER.rglob("*.safetensors"))
    assert [path.parent.name for path in files] == ["text_encoder", "transformer", "vae"]
    assert sum(path.stat().st_size for path in files) < LIMIT_BYTES
    for path in files:
        with safe_open(path, framework="pt") as file:
            assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"BF16"}  # noqa: SIM118


def test_card_shows_scores_and_pictures() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for part in ("copy the input", "oracle", "without reasoning", "successes.png", "failures.png", "## Limits"):
        assert part in card
    assert (FOLDER / "successes.png").is_file() and (FOLDER / "failures.png").is_file()


def test_nothing_to_do_keeps_the_background(editor: chronoedit.Editor) -> None:
    item = next(item for seed in range(100_000, 100_100) if (item := sample_item(seed)).edit == "nothing")
    edited = np.asarray(editor.edit(chronoedit.EditRequest(image=item.input, prompt=item.prompt, seed=0)).image)
    assert edited.shape == item.input.shape
    background = item.input_ids == 0
    assert np.abs(edited.astype(int) - item.input)[background].mean() < 12


def test_words_decide_the_edit(editor: chronoedit.Editor) -> None:
    """The same picture and seed with another instruction is another picture, and neither is pasted from the input."""
    item = sample_item(100_017)
    requests = [
        chronoedit.EditRequest(image=item.input, prompt=prompt, seed=0) for prompt in (item.prompt, "change nothing")
    ]
    edited, kept = (np.asarray(result.image).astype(int) for result in editor.edit_batch(requests))
    changed = item.edit_mask
    assert np.abs(edited - kept)[changed].mean() > 2 * np.abs(edited - kept)[~changed].mean()
    assert not np.array_equal(kept, item.input)


def test_autoencoder_passes_the_benchmark(editor: chronoedit.Editor) -> None:
    """The oracle row: the truth through the autoencoder is scored as a success."""
    from PIL import Image

    items = [sample_item(seed) for seed in range(100_000, 100_020)]
    passed = [score(item, np.asarray(editor.reconstruct(Image.fromarray(item.target)))).success for item in items]
    assert sum(passed) >= 19


def test_autoencoder_shows_stars(editor: chronoedit.Editor) -> None:
    """No training ever showed it one; their truth must pass all the same, or nothing could be taught and scored."""
    from PIL import Image

    items = [sample_item(seed, family="star") for seed in range(100_000, 100_020)]
    passed = [score(item, np.asarray(editor.reconstruct(Image.fromarray(item.target)))).success for item in items]
    assert sum(passed) >= 19
