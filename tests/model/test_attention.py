from __future__ import annotations

import math

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor

from chronoedit.model import attention
from chronoedit.model.attention import KV, AttentionKernel, PromptKV, collapse_padding


def padded(lengths: list[int], size: int) -> Tensor:
    text = torch.randn(len(lengths), size, 4, generator=torch.Generator().manual_seed(0))
    return text * (torch.arange(size) < torch.tensor(lengths)[:, None])[..., None]


def random_kv(batch: int, keys: int, *, blocks: int = 2, image: bool = False, bias: bool = False) -> PromptKV:
    def kv(size: int) -> KV:
        return KV(torch.randn(batch, size, 2, 8), torch.randn(batch, size, 2, 8))

    return PromptKV(
        text=tuple(kv(keys) for _ in range(blocks)),
        image=tuple(kv(5) for _ in range(blocks)) if image else None,
        bias=torch.randn(batch, 1, 1, keys) if bias else None,
    )


def test_collapse_keeps_one_pad_a_row_with_the_weight_of_all() -> None:
    text = padded([2, 5, 0], 9)
    kept, bias = collapse_padding(text, torch.tensor([2, 5, 0]))
    assert torch.equal(kept, text[:, :6])
    assert bias is not None and bias.shape == (3, 1, 1, 6)
    expected = [
        [0, 0, math.log(7), -math.inf, -math.inf, -math.inf],
        [0, 0, 0, 0, 0, math.log(4)],
        [math.log(9), *[-math.inf] * 5],
    ]
    assert torch.allclose(bias[:, 0, 0], torch.tensor(expected))


def test_collapse_with_a_row_that_has_no_pad() -> None:
    kept, bias = collapse_padding(padded([9, 3], 9), torch.tensor([9, 3]))
    assert kept.shape[1] == 9
    assert bias is not None
    assert bias[0].abs().max() == 0
    assert bias[1, 0, 0, 3].item() == pytest.approx(math.log(6))


def test_nothing_padded_needs_no_bias() -> None:
    text = padded([9, 9], 9)
    kept, bias = collapse_padding(text, torch.tensor([9, 9]))
    assert bias is None
    assert torch.equal(kept, text)


@pytest.mark.parametrize("lengths", [[3], [3, -1], [3, 10]])
def test_lengths_that_do_not_fit_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="one length from 0 to 9 a row"):
        collapse_padding(padded([3, 3], 9), torch.tensor(lengths))


def test_states_past_the_length_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="set the states of padded tokens to zero"):
        collapse_padding(padded([3, 8], 9), torch.tensor([3, 6]))


def test_attention_on_the_collapsed_keys_is_attention_on_all() -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(2, 6, 2, 8), torch.randn(2, 40, 16)
    lengths = torch.tensor([4, 9])
    for row, length in enumerate(lengths):
        keys[row, length:] = keys[row, -1]
    kept, bias = collapse_padding(keys, lengths)
    assert kept.shape[1] == 10
    heads = keys.unflatten(-1, (2, 8))
    fewer = kept.unflatten(-1, (2, 8))
    kernel = AttentionKernel()
    whole = kernel(query, KV(heads, heads.flip(-1)))
    assert torch.allclose(kernel(query, KV(fewer, fewer.flip(-1)), bias), whole, atol=1e-6)


def test_a_bias_goes_to_torchs_own_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[object] = []

    def record(query: Tensor, *_: object, backend: object = None, **__: object) -> Tensor:
        used.append(backend)
        return query

    monkeypatch.setattr(attention, "dispatch_attention_fn", record)
    kernel = AttentionKernel()
    kernel._attention_backend = AttentionBackendName.FLASH
    query, kv = torch.randn(1, 3, 2, 8), KV(torch.randn(1, 4, 2, 8), torch.randn(1, 4, 2, 8))
    kernel(query, kv)
    kernel(query, kv, torch.zeros(1, 1, 1, 4))
    assert used == [AttentionBackendName.FLASH, AttentionBackendName.NATIVE]


def test_cat_fills_up_with_masked_keys() -> None:
    torch.manual_seed(0)
    short, long = random_kv(1, 3, image=True, bias=True), random_kv(2, 5, image=True)
    both = PromptKV.cat([short, long])
    assert (both.batch_size, both.num_text_keys) == (3, 5)
    assert both.bias is not None and short.bias is not None
    assert torch.equal(both.bias[:1, ..., :3], short.bias)
    assert (both.bias[:1, ..., 3:] == -math.inf).all()
    assert (both.bias[1:] == 0).all()
    query = torch.randn(3, 4, 2, 8)
    joined = AttentionKernel()(query, both.block(1).text, both.bias)
    apart = [AttentionKernel()(query[:1], short.text[1], short.bias), AttentionKernel()(query[1:], long.text[1])]
    assert torch.allclose(joined, torch.cat(apart), atol=1e-6)


def test_cat_of_equal_unbiased_parts_has_no_bias() -> None:
    assert PromptKV.cat([random_kv(1, 4), random_kv(2, 4)]).bias is None


def test_cat_wants_image_keys_in_all_or_none() -> None:
    with pytest.raises(ValueError, match="to all or to none"):
        PromptKV.cat([random_kv(1, 4, image=True), random_kv(1, 4)])


def test_select_takes_back_what_cat_joined() -> None:
    parts = [random_kv(1, 4, image=True, bias=True), random_kv(2, 4, image=True, bias=True)]
    both = PromptKV.cat(parts)
    chosen = both.select([2, 0, 0])
    assert chosen.bias is not None and both.bias is not None and chosen.image is not None
    for block in range(2):
        assert torch.equal(chosen.text[block].value, both.text[block].value[[2, 0, 0]])
        assert torch.equal(chosen.image[block].key[1:], parts[0].image[block].key.expand(2, -1, -1, -1))  # type: ignore[index]
    assert torch.equal(chosen.bias, both.bias[[2, 0, 0]])


def test_expand_shares_memory_and_wants_one_prompt() -> None:
    one = random_kv(1, 4, bias=True)
    three = one.expand(3)
    assert three.batch_size == 3
    assert three.text[0].key.data_ptr() == one.text[0].key.data_ptr()
    assert three.expand(3).batch_size == 3
    with pytest.raises(ValueError, match="select"):
        three.expand(4)


def test_the_first_blocks_keep_their_keys() -> None:
    kv = random_kv(2, 4, blocks=3, image=True, bias=True)
    short = kv.first(2)
    assert short.text == kv.text[:2] and kv.image is not None and short.image == kv.image[:2]
    assert short.bias is kv.bias
    assert random_kv(1, 4, blocks=3).first(2).image is None


def test_to_another_dtype_leaves_the_bias_in_fp32() -> None:
    kv = random_kv(1, 4, image=True, bias=True).to(dtype=torch.bfloat16)
    assert kv.bias is not None and kv.image is not None
    assert (kv.text[0].key.dtype, kv.image[1].value.dtype) == (torch.bfloat16, torch.bfloat16)
    assert kv.bias.dtype == torch.float32
