"""A small T5-style tokenizer: unigram pieces with byte fallback, `</s>` at the end, padded with `<pad>`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

SPECIAL_PIECES = ("<pad>", "</s>", "<unk>")
"""Ids 0, 1 and 2, as T5 has them."""

BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Ids 3 to 258: what no piece covers is spelled in UTF-8 bytes, so that no text is lost."""

BYTE_SCORE = -100.0


def vocabulary(pieces: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """The whole vocabulary in the order of its ids: special pieces, bytes, then `pieces` (text, log probability)."""
    fixed = [(piece, 0.0) for piece in SPECIAL_PIECES] + [(piece, BYTE_SCORE) for piece in BYTE_PIECES]
    return fixed + list(pieces)


def pieces_of_words(words: Sequence[str]) -> list[tuple[str, float]]:
    """Pieces without training: each printable ASCII character, and each distinct word with its leading space."""
    characters = ["▁"] + [chr(code) for code in range(33, 127)]
    whole = sorted({f"▁{word}" for word in words if len(word) > 1})
    return [(piece, -10.0) for piece in characters] + [(piece, -8.0) for piece in whole]


def write_tokenizer(folder: Path, pieces: Iterable[tuple[str, float]], *, max_length: int) -> int:
    """Write `tokenizer.json` and its configs, which transformers' fast tokenizers read; returns the vocabulary's size.

    `pieces` holds (text, log probability), a space being written `▁`; `max_length` counts tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import Unigram

    table = vocabulary(pieces)
    tokenizer = Tokenizer(Unigram(table, unk_id=2, byte_fallback=True))
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement="▁")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in SPECIAL_PIECES])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, "padding_side": "right"}
    _write_json(folder / "tokenizer_config.json", {**config, **special})
    _write_json(folder / "special_tokens_map.json", special)
    return len(table)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
