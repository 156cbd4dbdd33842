"""Names and shapes of the transformer against diffusers' class, diffusers' own renaming, and a hand-written list."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import ChronoEditTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

from chronoedit.errors import CheckpointError
from chronoedit.model import keys
from chronoedit.model.dit import ChronoEditDiT

SMALL: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 48,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 24,
    "ffn_dim": 80,
    "num_layers": 2,
}
CONFIGS = {
    "plain": SMALL,
    "image": {**SMALL, "image_dim": 40, "added_kv_proj_dim": 56},
    "positions": {**SMALL, "image_dim": 40, "added_kv_proj_dim": 96, "pos_embed_seq_len": 514},
    "no norm": {**SMALL, "cross_attn_norm": False},
    "patch": {**SMALL, "patch_size": [1, 4, 2]},
}
KNOWN_PAIRS = {
    "patch_embedding.weight": "patch_embedding.weight",
    "time_embedding.0.bias": "condition_embedder.time_embedder.linear_1.bias",
    "time_embedding.2.weight": "condition_embedder.time_embedder.linear_2.weight",
    "text_embedding.0.weight": "condition_embedder.text_embedder.linear_1.weight",
    "text_embedding.2.bias": "condition_embedder.text_embedder.linear_2.bias",
    "time_projection.1.weight": "condition_embedder.time_proj.weight",
    "img_emb.proj.0.weight": "condition_embedder.image_embedder.norm1.weight",
    "img_emb.proj.1.bias": "condition_embedder.image_embedder.ff.net.0.proj.bias",
    "img_emb.proj.3.weight": "condition_embedder.image_embedder.ff.net.2.weight",
    "img_emb.proj.4.bias": "condition_embedder.image_embedder.norm2.bias",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "blocks.3.self_attn.q.weight": "blocks.3.attn1.to_q.weight",
    "blocks.3.self_attn.o.bias": "blocks.3.attn1.to_out.0.bias",
    "blocks.3.self_attn.norm_q.weight": "blocks.3.attn1.norm_q.weight",
    "blocks.39.cross_attn.k.weight": "blocks.39.attn2.to_k.weight",
    "blocks.39.cross_attn.k_img.weight": "blocks.39.attn2.add_k_proj.weight",
    "blocks.39.cross_attn.v_img.bias": "blocks.39.attn2.add_v_proj.bias",
    "blocks.39.cross_attn.norm_k_img.weight": "blocks.39.attn2.norm_added_k.weight",
    "blocks.0.ffn.0.weight": "blocks.0.ffn.net.0.proj.weight",
    "blocks.0.ffn.2.bias": "blocks.0.ffn.net.2.bias",
    "blocks.0.norm3.weight": "blocks.0.norm2.weight",
    "blocks.0.modulation": "blocks.0.scale_shift_table",
    "head.head.weight": "proj_out.weight",
    "head.modulation": "scale_shift_table",
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", [ChronoEditTransformer3DModel, ChronoEditDiT])
def test_expected_shapes_are_those_of_the_classes(name: str, kind: type) -> None:
    with init_empty_weights():
        module = kind(**CONFIGS[name])
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert keys.expected_shapes(keys.check_config(CONFIGS[name], name)) == shapes


@pytest.mark.parametrize("name", CONFIGS)
def test_names_go_to_the_original_and_back(name: str) -> None:
    ours = list(keys.expected_shapes(CONFIGS[name]))
    original = [keys.to_original(key) for key in ours]
    assert None not in original
    assert len(set(original)) == len(ours)
    assert [keys.to_ours(str(key)) for key in original] == ours


@pytest.mark.parametrize(("original", "ours"), KNOWN_PAIRS.items())
def test_known_names(original: str, ours: str) -> None:
    assert keys.to_ours(original) == ours
    assert keys.to_original(ours) == original


@pytest.mark.parametrize("name", ["plain", "image"])
def test_renaming_agrees_with_diffusers(name: str) -> None:
    ours = keys.expected_shapes(CONFIGS[name])
    marked = {str(keys.to_original(key)): torch.tensor(float(index)) for index, key in enumerate(ours)}
    for index, (key, value) in enumerate(convert_wan_transformer_to_diffusers(marked).items()):
        assert list(ours)[int(value)] == key, index


UNKNOWN_NAMES = (
    "",
    "head",
    "blocks.0",
    "blocks.0.self_attn",
    "blocks.x.self_attn.q.weight",
    "blocks.0.norm2.weight",
    "blocks.0.self_attn.q.weight.more",
    "vace_blocks.0.before_proj.weight",
)


@pytest.mark.parametrize("name", UNKNOWN_NAMES)
def test_unknown_original_names(name: str) -> None:
    assert keys.to_ours(name) is None


@pytest.mark.parametrize("prefix", ["", *keys.PREFIXES])
@pytest.mark.parametrize("layout", ["ours", "original"])
def test_layout_and_prefix_are_told(prefix: str, layout: str) -> None:
    ours = list(keys.expected_shapes(SMALL))
    names = [prefix + (key if layout == "ours" else str(keys.to_original(key))) for key in ours]
    assert keys.layout_of(names) == (layout, prefix)
    assert list(keys.names_to_ours(names, "file").values()) == ours


def test_unknown_names_are_left_for_the_strict_check() -> None:
    names = ["head.head.weight", "blocks.0.surprise", "other.head.head.weight"]
    assert keys.names_to_ours(names, "file") == {
        "head.head.weight": "proj_out.weight",
        "blocks.0.surprise": "blocks.0.surprise",
        "other.head.head.weight": "other.head.head.weight",
    }


def test_a_file_without_transformer_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"here\.safetensors holds no transformer.*2 tensors"):
        keys.names_to_ours(["a", "b"], "here.safetensors")


def test_config_drops_the_class_and_fills_out_channels() -> None:
    config = {**SMALL, "_class_name": "WanTransformer3DModel", "_diffusers_version": "0.1", "window_size": None}
    del config["out_channels"]
    assert keys.check_config(config, "config.json") == {**SMALL, "out_channels": 36}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization_config": {}}, "unknown keys quantization_config; known are .*ffn_dim"),
        ({"num_layers": 0}, "num_layers is 0; a whole number"),
        ({"num_layers": True}, "num_layers is True; a whole number"),
        ({"text_dim": "32"}, "text_dim is '32'"),
        ({"patch_size": 2}, "patch_size is 2; three whole numbers"),
        ({"image_dim": 12}, "image_dim and added_kv_proj_dim go together"),
        ({"image_dim": 1.5, "added_kv_proj_dim": 2}, "image_dim is 1.5"),
    ],
)
def test_config_that_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        keys.check_config({**SMALL, **change}, "config.json")


def test_config_that_lacks_keys() -> None:
    with pytest.raises(CheckpointError, match="config.json lacks attention_head_dim, ffn_dim"):
        keys.check_config({k: v for k, v in SMALL.items() if k not in ("ffn_dim", "attention_head_dim")}, "config.json")


def test_every_argument_of_our_class_is_known() -> None:
    arguments = set(inspect.signature(ChronoEditDiT.__init__).parameters) - {"self"}
    assert arguments == {*keys.SHAPE_KEYS, *keys.OPTIONAL_KEYS, *keys.OTHER_KEYS}
