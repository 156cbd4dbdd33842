"""The small text encoder and its tokenizer, trained on the world's own words.

Shapes: b batch, l tokens, d width of the encoder.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from chronoedit.model.encoders import clean_prompt
from chronoedit.model.tokenizer import pieces_of_words, write_tokenizer


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """Sizes of the UMT5 encoder; `vocab_size` bounds the learned words, bytes and characters come on top."""

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
    """Learn the words of prompts and write the tokenizer to `folder`; returns the size of its vocabulary.

    A unigram model whose pieces are the most frequent words with their log frequency; printable ASCII characters are
    always pieces, and bytes spell the rest, so that no text is lost. (The library's own unigram trainer gives another
    vocabulary at each run.)
    """
    words = Counter(word for prompt in prompts for word in re.findall(r"\w+", clean_prompt(prompt)))
    ranked = sorted(words.items(), key=lambda entry: (-entry[1], entry[0]))[: recipe.vocab_size]
    learned = {f"▁{word}": math.log(count / words.total()) for word, count in ranked}
    characters = [piece for piece, _ in pieces_of_words(()) if piece not in learned]
    floor = min(learned.values(), default=0.0) - 1  # a character of its own is the last resort before bytes
    pieces = [*learned.items(), *((piece, floor) for piece in characters)]
    return write_tokenizer(folder, pieces, max_length=recipe.max_sequence_length)


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
