from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import AutoencoderKLWan, ChronoEditPipeline, UniPCMultistepScheduler
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

from chronoedit import request
from chronoedit.errors import CheckpointError
from chronoedit.model.encoders import IMAGE_EMBED_MODES, clean_prompt, encode_image, encode_prompt

LIMIT = 12
WORDS = ["<pad>", "</s>", "<unk>", "make", "the", "ball", "red", "and", "small", "cube", "blue", "é", "&"]


def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=LIMIT
    )


@pytest.fixture(scope="module")
def components() -> Any:
    torch.manual_seed(0)
    text = UMT5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    return SimpleNamespace(
        tokenizer=tokenizer(),
        text_encoder=UMT5EncoderModel(text).eval(),
        image_encoder=CLIPVisionModel(vision).eval(),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        settings=SimpleNamespace(max_sequence_length=LIMIT),
    )


@pytest.fixture(scope="module")
def pipeline(components: Any) -> ChronoEditPipeline:
    return ChronoEditPipeline(
        tokenizer=components.tokenizer,
        text_encoder=components.text_encoder,
        image_encoder=components.image_encoder,
        image_processor=components.image_processor,
        transformer=None,
        vae=AutoencoderKLWan(base_dim=8, z_dim=4, num_res_blocks=1),
        scheduler=UniPCMultistepScheduler(),
    )


def picture(height: int, width: int) -> PIL.Image.Image:
    rows, columns = np.mgrid[:height, :width]
    return PIL.Image.fromarray(
        np.stack([rows * 3 % 256, columns * 2 % 256, (rows + columns) % 256], -1).astype(np.uint8)
    )


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("  make \n the\tball   red ", "make the ball red"),
        ("the cafÃ©", "the café"),
        ("salt &amp;amp; pepper &lt;3", "salt & pepper <3"),
        ("“red” ball", '"red" ball'),
        ("", ""),
    ],
)
def test_clean_prompt(given: str, cleaned: str) -> None:
    assert clean_prompt(given) == cleaned


def test_clean_prompt_equals_the_published_pipeline() -> None:
    from diffusers.pipelines.chronoedit.pipeline_chronoedit import prompt_clean

    for text in ("a\u00a0b\u2003c", "x &amp;quot; y", "schÃ¶n  \r\n", "\u3000日本 ", "<br>&nbsp;", "ﬁne"):
        assert clean_prompt(text) == prompt_clean(text)


def test_prompts_equal_the_published_pipeline(components: Any, pipeline: ChronoEditPipeline) -> None:
    prompts = ["make the  ball red", "", "é &amp; blue", " ".join(["cube"] * 20)]
    embeds, lengths = encode_prompt(components, prompts)
    with torch.no_grad():
        expected, negative = pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=True, max_sequence_length=LIMIT, device=torch.device("cpu")
        )
    assert lengths.tolist() == [5, 1, 4, LIMIT] and lengths.dtype == torch.int64
    assert embeds.shape == (4, LIMIT, 16)
    assert torch.equal(embeds, expected)
    torch.testing.assert_close(encode_prompt(components, [""])[0], negative[:1])


def test_embeddings_are_zero_past_the_length(components: Any) -> None:
    embeds, lengths = encode_prompt(components, ["the ball", "make the cube blue"])
    for row, length in zip(embeds, lengths.tolist(), strict=True):
        assert row[length:].abs().max() == 0
        assert row[:length].abs().sum(dim=-1).min() > 0
    assert not embeds.requires_grad


def test_a_prompt_over_the_limit_shows_what_is_cut(components: Any, caplog: pytest.LogCaptureFixture) -> None:
    fits = " ".join(["make"] * (LIMIT - 1))
    with caplog.at_level(logging.WARNING):
        encode_prompt(components, [fits])
        assert caplog.records == []
        encode_prompt(components, [fits + " the small cube"])
    ours = [record.getMessage() for record in caplog.records if record.name == "chronoedit.model.encoders"]
    assert len(ours) == 1 and "14 tokens" in ours[0] and "reads 11" in ours[0] and "'the small cube'" in ours[0]


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (28, 28)])
def test_crop_equals_the_published_pipeline(components: Any, pipeline: ChronoEditPipeline, size: tuple) -> None:
    embeds = encode_image(components, picture(*size), "crop")
    assert embeds is not None and embeds.shape == (1, 5, 24)
    assert torch.equal(embeds, pipeline.encode_image(picture(*size), torch.device("cpu")))


def test_squash_sees_the_edges_that_crop_cuts(components: Any) -> None:
    wide = picture(28, 84)
    edged = wide.copy()
    edged.paste((255, 0, 0), (0, 0, 14, 28))
    embeds = {
        (mode, name): encode_image(components, image, mode)
        for mode in ("crop", "squash")
        for name, image in (("wide", wide), ("edged", edged))
    }
    assert torch.equal(embeds["crop", "wide"], embeds["crop", "edged"])
    assert not torch.allclose(embeds["squash", "wide"], embeds["squash", "edged"])


def test_squash_is_a_resize_without_a_crop(components: Any) -> None:
    wide = picture(40, 90)
    squashed = encode_image(components, wide, "squash")
    by_hand = encode_image(components, wide.resize((28, 28), PIL.Image.Resampling.BICUBIC), "crop")
    torch.testing.assert_close(squashed, by_hand, atol=2e-3, rtol=2e-3)
    square = picture(60, 60)
    torch.testing.assert_close(encode_image(components, square, "squash"), encode_image(components, square, "crop"))


def test_image_modes_are_those_of_the_request(components: Any) -> None:
    assert set(IMAGE_EMBED_MODES) == set(request.IMAGE_EMBED_MODES)
    with pytest.raises(ValueError, match="choose from crop, squash"):
        encode_image(components, picture(28, 28), "pad")


def test_a_model_without_image_branch(components: Any) -> None:
    bare = SimpleNamespace(**{**vars(components), "image_encoder": None, "image_processor": None})
    assert encode_image(bare, picture(28, 28), "crop") is None
    half = SimpleNamespace(**{**vars(components), "image_processor": None})
    with pytest.raises(CheckpointError, match="image_processor"):
        encode_image(half, picture(28, 28), "crop")
