"""Random Qwen-VL checkpoints of a megabyte, in the layout of the published ones, with their tokens and chat format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_qwen(folder: Path, family: str = "qwen3_vl", hidden: int = 32, layers: int = 2) -> Path:
    """A checkpoint of `family` ("qwen3_vl" or "qwen2_5_vl") with random weights."""
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessorPil

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate((*letters, *SPECIAL))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[1:]),
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        patch_size=8, temporal_patch_size=2, merge_size=2, size={"shortest_edge": 256, "longest_edge": 4096}
    ).save_pretrained(folder)
    _model(family, vocabulary, hidden, layers).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": vocabulary["<|im_end|>"]}))
    return folder


def _model(family: str, vocabulary: dict[str, int], hidden: int, layers: int) -> Any:
    import transformers

    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [hidden // 8, hidden // 16, hidden // 16]}
    text = {
        "vocab_size": len(vocabulary), "bos_token_id": None, "eos_token_id": vocabulary["<|im_end|>"],
        "hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": hidden // 2,
        "max_position_embeddings": 4096, "rope_scaling": {**rope, "mrope_interleaved": True},
    }  # fmt: skip
    ids = {
        f"{name}_token_id": vocabulary[f"<|{token}|>"]
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": 8,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": hidden,
    }
    if family == "qwen3_vl":
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
        return transformers.Qwen3VLForConditionalGeneration(config)
    vision |= {"window_size": 32, "fullatt_block_indexes": [1]}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    return transformers.Qwen2_5_VLForConditionalGeneration(config)
