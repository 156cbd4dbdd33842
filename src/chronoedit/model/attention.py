"""Attention of the transformer, and the prompt's keys and values that are computed once a request.

Shapes: b batch, s video tokens, k text keys, i image keys (257), d model width, n heads, h channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch import Tensor, nn

from chronoedit.model.fused import normed_heads


class KV(NamedTuple):
    """Keys and values, normalised and split into heads: `b k n h` each."""

    key: Tensor
    value: Tensor


class PromptTokens(NamedTuple):
    """An embedded prompt: text `b k d`, image `b i d`, and what is added to the logits of the text, `b 1 1 k`."""

    text: Tensor
    image: Tensor | None
    bias: Tensor | None

    @property
    def batch_size(self) -> int:
        """Number of prompts, b."""
        return self.text.shape[0]

    def to(self, device: torch.device | None, non_blocking: bool = False) -> PromptTokens:
        """The same on another device, or where it is if that is None."""
        image = None if self.image is None else self.image.to(device, non_blocking=non_blocking)
        bias = None if self.bias is None else self.bias.to(device, non_blocking=non_blocking)
        return PromptTokens(self.text.to(device, non_blocking=non_blocking), image, bias)

    def select(self, rows: Tensor) -> PromptTokens:
        """The prompts of these rows, in this order."""
        image, bias = (None if x is None else x[rows] for x in (self.image, self.bias))
        return PromptTokens(self.text[rows], image, bias)


class BlockKV(NamedTuple):
    """The keys and values that one block makes of a `PromptTokens`, with its bias."""

    text: KV
    image: KV | None
    bias: Tensor | None

    @property
    def batch_size(self) -> int:
        """Number of prompts, b."""
        return self.text.key.shape[0]

    def select(self, rows: Tensor) -> BlockKV:
        """The prompts of these rows, in this order."""
        image = None if self.image is None else KV(self.image.key[rows], self.image.value[rows])
        bias = None if self.bias is None else self.bias[rows]
        return BlockKV(KV(self.text.key[rows], self.text.value[rows]), image, bias)


@dataclass(frozen=True, kw_only=True)
class PromptKV:
    """Cross-attention keys and values of all blocks for b prompts; they depend on neither step nor latents.

    `text` and `image` hold one `KV` a block (`b k n h`, `b i n h`); `bias`, `b 1 1 k`, fp32, is added to the text
    logits: log(number of padded tokens) where these were collapsed to one, -inf where a row has no key.
    """

    text: tuple[KV, ...]
    image: tuple[KV, ...] | None = None
    bias: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of prompts, b."""
        return self.text[0].key.shape[0]

    @property
    def num_text_keys(self) -> int:
        """Number of text keys, k; padded ones included."""
        return self.text[0].key.shape[1]

    def block(self, index: int) -> BlockKV:
        """What block `index` reads."""
        return BlockKV(self.text[index], None if self.image is None else self.image[index], self.bias)

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> PromptKV:
        """The same on another device or, for all but the bias, in another dtype."""
        moved = self._map(lambda x: x.to(device=device, dtype=dtype, non_blocking=non_blocking))
        bias = None if self.bias is None else self.bias.to(device=device, non_blocking=non_blocking)
        return PromptKV(text=moved.text, image=moved.image, bias=bias)

    def first(self, count: int) -> PromptKV:
        """What the first `count` blocks read."""
        image = None if self.image is None else self.image[:count]
        return PromptKV(text=self.text[:count], image=image, bias=self.bias)

    def select(self, rows: Sequence[int] | Tensor) -> PromptKV:
        """The prompts of these rows, in this order; a row may be named more than once."""
        index = torch.as_tensor(rows, dtype=torch.long)
        return self._map(lambda x: x.index_select(0, index.to(x.device)))

    def expand(self, batch_size: int) -> PromptKV:
        """One prompt for a batch of `batch_size`, without copies. Raises ValueError if it holds more than one."""
        if self.batch_size not in (1, batch_size):
            raise ValueError(
                f"{self.batch_size} prompts cannot be expanded to {batch_size}; name each row's prompt with select()"
            )
        return self._map(lambda x: x.expand(batch_size, *x.shape[1:]))

    @staticmethod
    def cat(parts: Sequence[PromptKV]) -> PromptKV:
        """The prompts of all `parts` as one batch; parts with fewer text keys are filled up with masked ones.

        Raises ValueError if some parts have image keys and others none.
        """
        if len({part.image is None for part in parts}) != 1:
            raise ValueError("some prompts have image keys and some have none; give image embeds to all or to none")
        num_keys = max(part.num_text_keys for part in parts)
        parts = [part._filled_up(num_keys) for part in parts]
        images = [part.image for part in parts if part.image is not None]
        biased = any(part.bias is not None for part in parts)
        return PromptKV(
            text=_cat_blocks([part.text for part in parts]),
            image=_cat_blocks(images) if images else None,
            bias=torch.cat([part._bias_or_zeros() for part in parts]) if biased else None,
        )

    def _map(self, change: Callable[[Tensor], Tensor]) -> PromptKV:
        def each(blocks: tuple[KV, ...]) -> tuple[KV, ...]:
            return tuple(KV(change(kv.key), change(kv.value)) for kv in blocks)

        return PromptKV(
            text=each(self.text),
            image=None if self.image is None else each(self.image),
            bias=None if self.bias is None else change(self.bias),
        )

    def _bias_or_zeros(self) -> Tensor:
        if self.bias is not None:
            return self.bias
        return torch.zeros(self.batch_size, 1, 1, self.num_text_keys, device=self.text[0].key.device)

    def _filled_up(self, num_keys: int) -> PromptKV:
        missing = num_keys - self.num_text_keys
        if missing == 0:
            return self
        text = tuple(KV(*(F.pad(x, (0, 0, 0, 0, 0, missing)) for x in kv)) for kv in self.text)  # b k n h
        return PromptKV(text=text, image=self.image, bias=F.pad(self._bias_or_zeros(), (0, missing), value=-torch.inf))


def _cat_blocks(parts: Sequence[tuple[KV, ...]]) -> tuple[KV, ...]:
    return tuple(KV(*(torch.cat(x) for x in zip(*block, strict=True))) for block in zip(*parts, strict=True))


def collapse_padding(text_embeds: Tensor, text_lengths: Tensor) -> tuple[Tensor, Tensor | None]:
    """Keeps one of each row's padded tokens and the logit bias that lets it stand for all of them.

    All padded states of a prompt are zero, so their keys and values are all the same: n of them weigh in the softmax
    as one whose logit is raised by log n. Takes `b l d` and the real lengths `b`; returns `b k d`, k = the greatest
    length + 1 (at most l), and a bias `b 1 1 k`, or None where nothing is padded.
    Raises ValueError if a length is not in 0…l, or if the states past it are not identical.
    """
    size = text_embeds.shape[1]
    lengths = text_lengths.to(text_embeds.device)[:, None]  # b 1
    if lengths.shape[0] != text_embeds.shape[0] or lengths.min() < 0 or lengths.max() > size:
        raise ValueError(
            f"text_lengths {text_lengths.tolist()} do not fit text_embeds of shape {tuple(text_embeds.shape)}; "
            f"give one length from 0 to {size} a row"
        )
    index = torch.arange(size, device=text_embeds.device)  # l
    last = text_embeds[:, -1:]
    if not ((text_embeds == last).all(-1) | (index < lengths)).all():
        raise ValueError(
            "text_embeds differ past text_lengths; set the states of padded tokens to zero, or leave text_lengths out"
        )
    if lengths.min() == size:
        return text_embeds, None
    kept = index[: int(lengths.max()) + 1]  # k
    pads = (size - lengths).clamp(min=1).log().float()
    bias = torch.zeros(len(lengths), len(kept), device=kept.device)
    bias = bias.where(kept != lengths, pads).masked_fill(kept > lengths, -torch.inf)
    return text_embeds[:, : len(kept)], bias[:, None, None]


class AttentionKernel:
    """The one door to the attention kernels; `ModelMixin.set_attention_backend` acts on it."""

    _attention_backend: AttentionBackendName | None = None

    def __call__(self, query: Tensor, kv: KV, bias: Tensor | None = None) -> Tensor:
        """Attention of `b s n h` on `b k n h`, as `b s (n h)`."""
        if bias is None:
            out = dispatch_attention_fn(query, kv.key, kv.value, backend=self._attention_backend)
        else:
            # FlashAttention 2 and 3 and Sage take no bias: with one, only torch's own attention will do.
            native = AttentionBackendName.NATIVE
            out = dispatch_attention_fn(query, kv.key, kv.value, attn_mask=bias.to(query.dtype), backend=native)
        return out.flatten(2)  # b s (n h)


class Attention(nn.Module, AttentionModuleMixin):
    """Self-attention, or cross-attention on text and, where `added_kv_proj_dim` is given, on image tokens."""

    _default_processor_cls = AttentionKernel
    _available_processors = [AttentionKernel]
    _supports_qkv_fusion = False
    processor: AttentionKernel
    add_k_proj: nn.Linear | None
    add_v_proj: nn.Linear | None
    norm_added_k: nn.RMSNorm | None

    def __init__(self, dim: int, heads: int, eps: float, added_kv_proj_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q = nn.RMSNorm(dim, eps=eps)
        self.norm_k = nn.RMSNorm(dim, eps=eps)
        self.add_k_proj = self.add_v_proj = None
        self.norm_added_k = None
        if added_kv_proj_dim is not None:
            self.add_k_proj = nn.Linear(added_kv_proj_dim, dim)
            self.add_v_proj = nn.Linear(added_kv_proj_dim, dim)
            self.norm_added_k = nn.RMSNorm(dim, eps=eps)
        self.processor = AttentionKernel()

    def forward(
        self, hidden_states: Tensor, prompt: PromptTokens | BlockKV | None = None, rotary: Tensor | None = None
    ) -> Tensor:
        """Attends from `b s d` to the prompt, or to itself if there is none; `b s d`."""
        turned = rotary if prompt is None else None
        query = normed_heads(self.to_q(hidden_states), self.norm_q, self.heads, turned)
        if prompt is None:
            out = self.processor(query, self.text_kv(hidden_states, rotary))
        else:
            text, image, bias = self.project(prompt) if isinstance(prompt, PromptTokens) else prompt
            out = self.processor(query, text, bias)
            if image is not None:
                out = out + self.processor(query, image)
        return self.to_out[0](out)

    def project(self, prompt: PromptTokens) -> BlockKV:
        """The keys and values of a prompt."""
        image = None if prompt.image is None else self.image_kv(prompt.image)
        return BlockKV(self.text_kv(prompt.text), image, prompt.bias)

    def text_kv(self, tokens: Tensor, rotary: Tensor | None = None) -> KV:
        """Keys and values of text (or, with their `rotary`, of the video's own) tokens, `b k d`."""
        return KV(normed_heads(self.to_k(tokens), self.norm_k, self.heads, rotary), self._split(self.to_v(tokens)))

    def image_kv(self, tokens: Tensor) -> KV:
        """Keys and values of embedded image tokens, `b i d`."""
        assert self.add_k_proj is not None and self.add_v_proj is not None and self.norm_added_k is not None
        key = normed_heads(self.add_k_proj(tokens), self.norm_added_k, self.heads)
        return KV(key, self._split(self.add_v_proj(tokens)))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))  # b s n h
