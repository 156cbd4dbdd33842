"""ChronoEditDiT: the video diffusion transformer that predicts the velocity of the latents.

Parameter names and configuration keys are those of the published checkpoint, so diffusers' tools work on it.

Shapes: b batch, c latent channels, t h w latent frames, rows and columns, s video tokens (a patch each), l text tokens,
i image tokens (257), d model width (heads · head dimension).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import FeedForward
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding, get_timestep_embedding
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import FP32LayerNorm
from diffusers.utils import apply_lora_scale
from einops import rearrange
from torch import Tensor, nn

from chronoedit.model.attention import Attention, BlockKV, PromptKV, PromptTokens, collapse_padding
from chronoedit.model.fused import gated_residual, modulated_norm
from chronoedit.model.rope import default_frame_positions, rotary_table


class ImageEmbedder(nn.Module):
    """Brings CLIP image states to the width of the transformer."""

    def __init__(self, image_dim: int, dim: int, pos_embed_seq_len: int | None) -> None:
        super().__init__()
        self.norm1 = FP32LayerNorm(image_dim)
        self.ff = FeedForward(image_dim, dim, mult=1, activation_fn="gelu")
        self.norm2 = FP32LayerNorm(dim)
        self.pos_embed = None
        if pos_embed_seq_len is not None:
            self.pos_embed = nn.Parameter(torch.zeros(1, pos_embed_seq_len, image_dim))

    def forward(self, image_embeds: Tensor) -> Tensor:
        """`b i image_dim` to `b i d`; with a position embedding two images in a row make one sequence, `b/2 2i d`."""
        if self.pos_embed is not None:
            image_embeds = rearrange(image_embeds, "(b two) i d -> b (two i) d", two=2) + self.pos_embed
        return self.norm2(self.ff(self.norm1(image_embeds)))


class ConditionEmbedder(nn.Module):
    """Embeds the timestep and the prompt's text and image states."""

    def __init__(
        self, dim: int, freq_dim: int, text_dim: int, image_dim: int | None, pos_embed_seq_len: int | None
    ) -> None:
        super().__init__()
        self.freq_dim = freq_dim
        self.time_embedder = TimestepEmbedding(in_channels=freq_dim, time_embed_dim=dim)
        self.time_proj = nn.Linear(dim, 6 * dim)
        self.text_embedder = PixArtAlphaTextProjection(text_dim, dim, act_fn="gelu_tanh")
        self.image_embedder = None if image_dim is None else ImageEmbedder(image_dim, dim, pos_embed_seq_len)

    def time(self, timestep: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Embedding of the timestep `b`, and the modulation of the blocks made of it: `b d` and `b 6 d`."""
        waves = get_timestep_embedding(timestep, self.freq_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        weight_dtype = self.time_embedder.linear_1.weight.dtype  # fp32 in the published mix of precisions
        temb = self.time_embedder(waves.to(weight_dtype if weight_dtype.is_floating_point else dtype)).to(dtype)
        return temb, self.time_proj(F.silu(temb)).unflatten(1, (6, -1))

    def prompt(self, text_embeds: Tensor, image_embeds: Tensor | None, text_lengths: Tensor | None) -> PromptTokens:
        """Embedded text and image tokens; with `text_lengths`, padded text tokens are collapsed to one."""
        if (image_embeds is None) != (self.image_embedder is None):
            wanted, given = ("image embeds", "none") if image_embeds is None else ("no image embeds", "some")
            raise ValueError(f"this transformer takes {wanted} and was given {given}; see `image_dim` in its config")
        bias = None
        if text_lengths is not None:
            text_embeds, bias = collapse_padding(text_embeds, text_lengths)
        image = None if self.image_embedder is None else self.image_embedder(image_embeds)
        return PromptTokens(self.text_embedder(text_embeds), image, bias)


class ChronoEditBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward; norms, modulation and residual sums in fp32."""

    def __init__(
        self, dim: int, ffn_dim: int, heads: int, cross_attn_norm: bool, eps: float, added_kv_proj_dim: int | None
    ) -> None:
        super().__init__()
        self.norm1 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.attn1 = Attention(dim, heads, eps)
        self.norm2 = FP32LayerNorm(dim, eps) if cross_attn_norm else nn.Identity()
        self.attn2 = Attention(dim, heads, eps, added_kv_proj_dim)
        self.norm3 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = FeedForward(dim, inner_dim=ffn_dim, activation_fn="gelu-approximate")
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self, hidden_states: Tensor, prompt: PromptTokens | BlockKV, modulation: Tensor, rotary: Tensor
    ) -> Tensor:
        """`b s d` to `b s d`; `modulation` is `b 6 d`, `rotary` `1 s 1 h/2 2`."""
        x = hidden_states
        modulation = self.scale_shift_table + modulation.float()
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation.chunk(6, dim=1)  # b 1 d each

        normed = modulated_norm(x, self.norm1, shift, scale)
        x = gated_residual(x, self.attn1(normed, rotary=rotary), gate)
        x = x + self.attn2(self.norm2(x), prompt)
        normed = modulated_norm(x, self.norm3, ffn_shift, ffn_scale)
        return gated_residual(x, self.ffn(normed), ffn_gate)


# Written to the table itself: `register` would first import two dozen other transformers, a second of every start.
TransformerBlockRegistry._registry[ChronoEditBlock] = TransformerBlockMetadata(
    return_hidden_states_index=0, _cls=ChronoEditBlock
)


class Grid(NamedTuple):
    """Number of tokens along time, rows and columns."""

    frames: int
    rows: int
    columns: int


class RunBlocks(Protocol):
    """Runs blocks `start` to `stop` on `b s d`; with `rows`, x has only these rows of the batch."""

    def __call__(self, x: Tensor, start: int = 0, stop: int | None = None, *, rows: Tensor | None = None) -> Tensor: ...


class ChronoEditDiT(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin):
    """The transformer of ChronoEdit (Wan2.1 image-to-video layout), equal to diffusers' `ChronoEditTransformer3DModel`.

    Constructor arguments are the keys of the published `config.json`. `image_dim` and `added_kv_proj_dim` are both
    given (CLIP image branch) or both None; two latent frames stand at {0, rope_temporal_skip_len - 1}.
    Raises ValueError for a configuration that it cannot compute.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["ChronoEditBlock"]
    _repeated_blocks = ["ChronoEditBlock"]
    _skip_layerwise_casting_patterns = ["patch_embedding", "condition_embedder", "norm"]
    _keep_in_fp32_modules = ["time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"]
    _keys_to_ignore_on_load_unexpected = ["norm_added_q"]

    @register_to_config
    def __init__(  # noqa: PLR0913 - the keys of the published configuration
        self,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int | None = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        rope_temporal_skip_len: int = 8,
    ) -> None:
        super().__init__()
        if qk_norm != "rms_norm_across_heads":
            raise ValueError(f"qk_norm {qk_norm!r} is not supported; use 'rms_norm_across_heads'")
        if (image_dim is None) != (added_kv_proj_dim is None):
            raise ValueError(
                f"image_dim {image_dim} and added_kv_proj_dim {added_kv_proj_dim} do not go together; "
                "give both for a model with an image branch, neither for one without"
            )
        dim = num_attention_heads * attention_head_dim
        self.patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.condition_embedder = ConditionEmbedder(dim, freq_dim, text_dim, image_dim, pos_embed_seq_len)
        self.blocks = nn.ModuleList(
            ChronoEditBlock(dim, ffn_dim, num_attention_heads, cross_attn_norm, eps, added_kv_proj_dim)
            for _ in range(num_layers)
        )
        self.norm_out = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(dim, (out_channels or in_channels) * math.prod(patch_size))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.gradient_checkpointing = False

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor | None = None,
        encoder_hidden_states_image: Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
        *,
        frame_positions: Tensor | None = None,
        prompt_kv: PromptKV | None = None,
        text_lengths: Tensor | None = None,
        through: Callable[[Tensor, RunBlocks], Tensor] | None = None,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Velocity `b out t h w` of the latents and condition `b in t h w` at the timestep `b` (1000 · sigma).

        The prompt is either text states `b l text_dim` (and image states `b i image_dim`; `text_lengths`, `b`,
        collapses their padded tokens) or `prompt_kv` of the same batch size. `frame_positions`, `t`: see
        `default_frame_positions`. `attention_kwargs={"scale": x}` scales LoRA layers. `through(x, run)` stands for the
        blocks, all or some of which it may `run`. Mutates nothing.
        Raises ValueError if these do not fit together.
        """
        grid = self._grid(hidden_states)
        if frame_positions is None:
            skip_len = self.config.rope_temporal_skip_len
            frame_positions = default_frame_positions(grid.frames, skip_len, hidden_states.device)
        elif frame_positions.shape != (grid.frames,):
            raise ValueError(
                f"frame_positions of shape {tuple(frame_positions.shape)}; give {grid.frames}, one a frame"
            )
        rotary = rotary_table(
            frame_positions.to(hidden_states.device), grid.rows, grid.columns, self.config.attention_head_dim
        )
        temb, modulation = self.condition_embedder.time(timestep, hidden_states.dtype)
        prompts = self._block_prompts(encoder_hidden_states, encoder_hidden_states_image, text_lengths, prompt_kv)
        if prompts and prompts[0].batch_size != hidden_states.shape[0]:
            raise ValueError(
                f"{prompts[0].batch_size} prompts for {hidden_states.shape[0]} rows of latents; "
                "give one a row (PromptKV.expand and select repeat prompts)"
            )

        def run(x: Tensor, start: int = 0, stop: int | None = None, *, rows: Tensor | None = None) -> Tensor:
            steps = modulation if rows is None else modulation[rows]
            for block, prompt in list(zip(self.blocks, prompts, strict=True))[start:stop]:
                prompt = prompt if rows is None else prompt.select(rows)
                if torch.is_grad_enabled() and self.gradient_checkpointing:
                    x = self._gradient_checkpointing_func(block, x, prompt, steps, rotary)
                else:
                    x = block(x, prompt, steps, rotary)
            return x

        # Not in a variable: the first tokens are free once the first block has run.
        x = run(self._tokens(hidden_states)) if through is None else through(self._tokens(hidden_states), run)
        velocity = self._unpatchify(self._head(x, temb), grid)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def prompt_kv(
        self, text_embeds: Tensor, image_embeds: Tensor | None = None, *, text_lengths: Tensor | None = None
    ) -> PromptKV:
        """Keys and values of the prompt for every block, to be computed once a request and given to each forward.

        Takes text states `b l text_dim` and image states `b i image_dim`. With the prompts' real lengths, `b`, the
        padded tokens of each row become one key with a bias: the same up to rounding. Without, every key is kept.
        """
        with _onloaded(self) as device:
            image_embeds = None if image_embeds is None else image_embeds.to(device)
            tokens = self.condition_embedder.prompt(text_embeds.to(device), image_embeds, text_lengths)
        blocks: list[BlockKV] = []
        for block in self.blocks:
            with _onloaded(block) as device:
                blocks.append(cast(ChronoEditBlock, block).attn2.project(tokens.to(device)))
        images = tuple(block.image for block in blocks if block.image is not None)
        return PromptKV(text=tuple(block.text for block in blocks), image=images or None, bias=tokens.bias)

    def _block_prompts(
        self, text: Tensor | None, image: Tensor | None, text_lengths: Tensor | None, prompt_kv: PromptKV | None
    ) -> Sequence[PromptTokens | BlockKV]:
        """One prompt a block. Without `prompt_kv` each block projects for itself, inside its own forward, so that
        gradient checkpointing, sharding and offloading of blocks cover those weights too."""
        if text is not None and prompt_kv is None:
            return [self.condition_embedder.prompt(text, image, text_lengths)] * len(self.blocks)
        if text is not None or prompt_kv is None:
            raise ValueError("give the prompt either as encoder_hidden_states or as prompt_kv, not both, not neither")
        if image is not None or text_lengths is not None:
            raise ValueError("prompt_kv holds the image's keys and the collapsed padding; leave image and lengths out")
        if len(prompt_kv.text) != len(self.blocks):
            raise ValueError(f"prompt_kv is of {len(prompt_kv.text)} blocks, this transformer has {len(self.blocks)}")
        return [prompt_kv.block(index) for index in range(len(self.blocks))]

    def _grid(self, hidden_states: Tensor) -> Grid:
        size, patch = hidden_states.shape[-3:], self.config.patch_size
        if any(length % side for length, side in zip(size, patch, strict=True)):
            raise ValueError(f"latents of {tuple(size)} (t h w) cannot be cut into patches of {tuple(patch)}")
        grid = Grid(*(length // side for length, side in zip(size, patch, strict=True)))
        if max(grid) > self.config.rope_max_seq_len:
            raise ValueError(f"{grid} is larger than rope_max_seq_len {self.config.rope_max_seq_len} on a side")
        return grid

    def _tokens(self, hidden_states: Tensor) -> Tensor:
        # Contiguous, or the convolution's strides stay with x through all blocks, and every norm copies it.
        return self.patch_embedding(hidden_states).flatten(2).transpose(1, 2).contiguous()  # b s d

    def _head(self, x: Tensor, temb: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table.to(temb.device) + temb[:, None]).to(x.device).chunk(2, dim=1)  # b 1 d
        return self.proj_out((self.norm_out(x.float()) * (1 + scale) + shift).type_as(x))

    def _unpatchify(self, x: Tensor, grid: Grid) -> Tensor:
        sizes = dict(zip(("f", "y", "x", "pt", "ph", "pw"), (*grid, *self.config.patch_size), strict=True))
        return rearrange(x, "b (f y x) (pt ph pw c) -> b c (f pt) (y ph) (x pw)", **sizes)


@contextmanager
def _onloaded(module: nn.Module) -> Iterator[torch.device | None]:
    """Brings the weights of a group-offloaded module to its device, which diffusers does in `forward` only.

    Yields that device, to which the inputs must go too; None where nothing is offloaded.
    """
    registry = getattr(module, "_diffusers_hook", None)
    hook = None if registry is None else registry.get_hook("group_offloading")
    if hook is None:
        yield None
        return
    hook.group.onload_()
    if hook.group.stream is not None:
        hook.group.stream.synchronize()
    try:
        yield hook.group.onload_device
    finally:
        hook.group.offload_()
