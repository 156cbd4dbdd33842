"""The tokenizer loses nothing, and training embeds prompts as inference does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from chronoedit.model.checkpoint import Components
from chronoedit.model.encoders import encode_prompt
from chronoedit.model.settings import ModelSettings
from chronoedit.training.text import Prompts, TextModel, embed, train_tokenizer
from chronoedit.world import sample_item

RECIPE = TextModel(d_model=24, num_layers=2, num_heads=2, d_kv=12, d_ff=32, vocab_size=150, max_sequence_length=32)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    size = train_tokenizer((sample_item(seed).prompt for seed in range(200)), folder, RECIPE)
    assert size == len(AutoTokenizer.from_pretrained(folder))
    return folder


@pytest.mark.parametrize("text", ["push the red cube to the left", "Zürich: 東京 🙂 = 100%", "xylophone"])
def test_any_text_comes_back(tokenizer_folder: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    ids = tokenizer(text).input_ids
    assert ids[-1] == tokenizer.eos_token_id == 1
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_words_of_the_world_are_few_tokens(tokenizer_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    prompts = [sample_item(seed).prompt for seed in range(1000, 1040)]
    tokens = sum(len(tokenizer(prompt).input_ids) for prompt in prompts)
    assert tokens < 2.5 * sum(len(prompt.split()) + 1 for prompt in prompts)


def test_the_words_of_the_drawn_world_fit_the_recipe(tmp_path: Path) -> None:
    items = [sample_item(seed, split="all") for seed in range(240)]
    size = train_tokenizer((text for item in items for text in (item.prompt, item.long_prompt)), tmp_path, TextModel())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert size < TextModel().vocab_size + 400  # words, characters and bytes
    for item in (sample_item(seed, split="all") for seed in range(100_000, 100_024)):
        for text in (item.prompt, item.long_prompt):
            ids = tokenizer(text).input_ids
            assert len(ids) <= TextModel().max_sequence_length and tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_same_words_give_the_same_tokenizer(tokenizer_folder: Path, tmp_path: Path) -> None:
    train_tokenizer((sample_item(seed).prompt for seed in range(200)), tmp_path, RECIPE)
    assert (tmp_path / "tokenizer.json").read_bytes() == (tokenizer_folder / "tokenizer.json").read_bytes()


def test_training_embeds_as_inference(tokenizer_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(0)
    encoder = RECIPE.build(len(tokenizer)).eval()
    texts = ["push the red cube to the left", "drop the ball", "do nothing"]
    prompts = Prompts(tokenizer, texts, RECIPE.max_sequence_length)
    ids, lengths = prompts.batch([0, 1, 2], [False, False, True])
    settings = ModelSettings(name="x", max_sequence_length=RECIPE.max_sequence_length)
    parts = {"transformer": None, "autoencoder": None, "text_encoder": encoder, "tokenizer": tokenizer}
    components = Components.in_memory(settings, parts, dtype=torch.float32, device="cpu")
    expected, expected_lengths = encode_prompt(components, [*texts[:2], ""])
    assert torch.equal(lengths, expected_lengths)
    with torch.no_grad():
        found = embed(encoder, ids, lengths, RECIPE.max_sequence_length)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)
