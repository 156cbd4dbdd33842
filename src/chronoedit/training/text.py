"""The small text encoder and its tokenizer, trained on the world's own words.

Shapes: b batch, l tokens, d width of the encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from chronoedit.model.encoders import clean_prompt
from chronoedit.model.tokenizer import pieces_of_words, write_tokenizer


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """Sizes of the UMT5 encoder; `vocab_size` bounds the learned pieces, bytes and characters come on top."""

    d_model: int = 192
    num_layers: int = 2
    num_heads: int = 4
    d_kv: int = 48
    d_ff: int = 512
    vocab_size: int = 1000
    max_sequence_length: int = 160

    def build(self, vocabulary_size: int) -> UMT5EncoderModel:
        """A randomly initialised encoder for a tokenizer of `vocabulary_size` pieces, without dropout."""
        config = UMT5Config(
            vocab_size=vocabulary_size,
            d_model=self.d_model,
            d_kv=self.d_kv,
            d_ff=self.d_ff,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            dropout_rate=0.0,
        )
        config.architectures = ["UMT5EncoderModel"]
        return UMT5EncoderModel(config)


def train_tokenizer(prompts: Iterable[str], folder: Path, recipe: TextModel) -> int:
    """Learn unigram pieces from prompts and write the tokenizer to `folder`; returns the size of its vocabulary.

    Printable ASCII characters are always pieces, and bytes spell the rest: no text is lost.
    """
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers.models import Unigram

    learner = Tokenizer(Unigram())
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    trainer = trainers.UnigramTrainer(
        vocab_size=recipe.vocab_size, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    learner.train_from_iterator((clean_prompt(prompt) for prompt in prompts), trainer)
    learned = {piece: score for piece, score in _pieces(learner) if piece != "<unk>"}
    missing = {piece: score for piece, score in pieces_of_words(()) if piece not in learned}
    floor = min(learned.values(), default=0.0) - 1  # a character of its own is the last resort before bytes
    pieces = [*learned.items(), *((piece, min(score, floor)) for piece, score in missing.items())]
    return write_tokenizer(folder, pieces, max_length=recipe.max_sequence_length)


def _pieces(learner: Any) -> list[tuple[str, float]]:
    import json

    return [(piece, score) for piece, score in json.loads(learner.to_str())["model"]["vocab"]]


class Prompts:
    """Tokenised prompts, and their embeddings by the encoder that is in training."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], max_sequence_length: int) -> None:
        texts = [clean_prompt(prompt) for prompt in prompts]
        self.ids = tokenizer(texts, truncation=True, max_length=max_sequence_length).input_ids
        self.empty = tokenizer("").input_ids
        self.pad = tokenizer.pad_token_id
        self.max_sequence_length = max_sequence_length

    def batch(self, which: Sequence[int], dropped: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """Token ids `b l`, padded to the longest, and lengths `b`; a dropped prompt is the empty one."""
        rows = [self.empty if drop else self.ids[i] for i, drop in zip(which, dropped, strict=True)]
        lengths = torch.tensor([len(row) for row in rows])
        longest = int(lengths.max())
        return torch.tensor([row + [self.pad] * (longest - len(row)) for row in rows]), lengths


def embed(encoder: nn.Module, ids: Tensor, lengths: Tensor, max_sequence_length: int) -> Tensor:
    """Text embeddings `b max_sequence_length d`, zero past each length: as `encoders.encode_prompt`, with gradients."""
    mask = torch.arange(ids.shape[1], device=ids.device) < lengths.to(ids.device)[:, None]  # b l
    states = encoder(ids, mask.long()).last_hidden_state  # b l d
    states = states * mask.unsqueeze(-1)
    return nn.functional.pad(states, (0, 0, 0, max_sequence_length - ids.shape[1]))
