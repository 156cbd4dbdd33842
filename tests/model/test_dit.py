"""ChronoEditDiT computes what diffusers' ChronoEditTransformer3DModel computes; and what it adds to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_chronoedit import ChronoEditTransformer3DModel
from torch import Tensor

from chronoedit.model.attention import PromptKV
from chronoedit.model.dit import ChronoEditDiT

PARITY = 1e-5  # of max(1, max|reference|), fp32

Pair = tuple[ChronoEditDiT, ChronoEditTransformer3DModel]


@pytest.fixture(scope="module")
def make_pair(
    random_dit: Callable[..., ChronoEditDiT], dit_config: Callable[..., dict[str, Any]]
) -> Callable[..., Pair]:
    """Ours and the reference with the same weights, loaded strictly in both directions."""
    made: dict[str, Pair] = {}

    def make(**config: Any) -> Pair:
        name = repr(sorted(config.items()))
        if name not in made:
            ours, reference = random_dit(**config), ChronoEditTransformer3DModel(**dit_config(**config)).eval()
            reference.load_state_dict(ours.state_dict(), strict=True)
            ours.load_state_dict(reference.state_dict(), strict=True)
            made[name] = ours, reference
        return made[name]

    return make


def outputs(dit: ChronoEditDiT, inputs: Any) -> dict[str, Tensor]:
    """The same forward in every way of giving the prompt."""
    prompt = inputs.text, inputs.image_embeds
    whole, collapsed = dit.prompt_kv(*prompt), dit.prompt_kv(*prompt, text_lengths=inputs.lengths)
    assert whole.num_text_keys == inputs.text.shape[1]
    assert collapsed.num_text_keys == inputs.lengths.max() + 1
    first = inputs.hidden_states, inputs.timestep
    return {
        "text states": dit(*inputs.plain).sample,
        "prompt_kv": dit(*first, prompt_kv=whole).sample,
        "text states, collapsed": dit(*inputs.plain, text_lengths=inputs.lengths).sample,
        "prompt_kv, collapsed": dit(*first, prompt_kv=collapsed).sample,
    }


@torch.no_grad()
@pytest.mark.parametrize("image", [False, True], ids=["no image branch", "image branch"])
@pytest.mark.parametrize("frames", [2, 3, 8])
def test_parity(make_pair: Any, dit_inputs: Any, assert_close: Any, frames: int, image: bool) -> None:
    ours, reference = make_pair(image=image)
    inputs = dit_inputs(frames=frames, image=image)
    expected = reference(*inputs.plain).sample
    results = outputs(ours, inputs)
    for result in results.values():
        assert_close(result, expected, PARITY)
    assert torch.equal(results["prompt_kv"], results["text states"])


@torch.no_grad()
@pytest.mark.parametrize("head_dim", [16, 40, 64])
@pytest.mark.parametrize("frames", [2, 3])
def test_parity_where_table_and_split_of_the_positions_disagree(
    make_pair: Any, dit_inputs: Any, assert_close: Any, head_dim: int, frames: int
) -> None:
    ours, reference = make_pair(head_dim=head_dim)
    inputs = dit_inputs(frames=frames)
    expected = reference(*inputs.plain).sample
    for result in outputs(ours, inputs).values():
        assert_close(result, expected, PARITY)


@torch.no_grad()
def test_parity_of_the_rarer_settings(make_pair: Any, dit_inputs: Any, assert_close: Any) -> None:
    ours, reference = make_pair(
        image=True, cross_attn_norm=False, pos_embed_seq_len=514, out_channels=5, rope_temporal_skip_len=5, eps=1e-3
    )
    inputs = dit_inputs(image=True)
    two_images_a_row = torch.randn(4, 257, 24)
    plain = (*inputs.plain[:3], two_images_a_row)
    assert_close(ours(*plain).sample, reference(*plain).sample, PARITY)


def test_names_and_config_are_the_references(make_pair: Any) -> None:
    ours, reference = make_pair(image=True)
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert shapes == {name: value.shape for name, value in reference.state_dict().items()}
    keys = {key for key in ours.config if not key.startswith("_")}
    assert keys == {key for key in reference.config if not key.startswith("_")}
    assert not type(ours).__name__.startswith("ChronoEditTransformer3D")


@torch.no_grad()
def test_frame_positions(random_dit: Any, dit_inputs: Any) -> None:
    dit, inputs = random_dit(), dit_inputs()
    default = dit(*inputs.plain).sample
    assert torch.equal(dit(*inputs.plain, frame_positions=torch.tensor([0, 7])).sample, default)
    assert not torch.allclose(dit(*inputs.plain, frame_positions=torch.tensor([0, 1])).sample, default, atol=1e-3)


@torch.no_grad()
def test_rows_of_a_batch_are_what_they_are_alone(random_dit: Any, dit_inputs: Any, assert_close: Any) -> None:
    dit, inputs = random_dit(image=True), dit_inputs(image=True)
    rows = [
        dit.prompt_kv(inputs.text[i : i + 1], inputs.image_embeds[i : i + 1], text_lengths=inputs.lengths[i : i + 1])
        for i in range(2)
    ]
    assert [row.num_text_keys for row in rows] == [8, 21]
    together = dit(inputs.hidden_states, inputs.timestep, prompt_kv=PromptKV.cat(rows)).sample
    for i, kv in enumerate(rows):
        alone = dit(inputs.hidden_states[i : i + 1], inputs.timestep[i : i + 1], prompt_kv=kv).sample
        assert_close(together[i : i + 1], alone, PARITY)
    shared = dit(inputs.hidden_states, inputs.timestep, prompt_kv=rows[0].expand(2)).sample
    assert_close(shared[:1], together[:1], PARITY)


def test_gradients_reach_every_weight_and_do_not_depend_on_the_collapse(
    random_dit: Any, dit_inputs: Any, assert_close: Any
) -> None:
    dit, inputs = random_dit(image=True), dit_inputs(image=True)

    def gradients(**lengths: Tensor) -> dict[str, Tensor]:
        dit.zero_grad()
        dit(*inputs.plain, return_dict=False, **lengths)[0].square().mean().backward()
        assert all(parameter.grad is not None for parameter in dit.parameters())
        return {name: parameter.grad.clone() for name, parameter in dit.named_parameters()}

    plain, collapsed = gradients(), gradients(text_lengths=inputs.lengths)
    assert all(value.abs().max() > 0 for value in plain.values())
    for name, value in plain.items():
        assert_close(collapsed[name], value, 1e-5)


@torch.no_grad()
def test_no_block_gets_the_strides_of_the_convolution(random_dit: Any, dit_inputs: Any) -> None:
    dit, contiguous = random_dit(), []
    for block in dit.blocks:
        block.register_forward_pre_hook(lambda _, arguments: contiguous.append(arguments[0].is_contiguous()))
    dit(*dit_inputs(frames=8).plain)
    assert contiguous == [True, True]


@torch.no_grad()
def test_forward_mutates_nothing(random_dit: Any, dit_inputs: Any) -> None:
    dit, inputs = random_dit(image=True), dit_inputs(image=True)
    kv = dit.prompt_kv(inputs.text, inputs.image_embeds, text_lengths=inputs.lengths)
    given = [inputs.hidden_states, inputs.timestep, kv.bias, *(x for block in (*kv.text, *kv.image) for x in block)]
    before = [x.clone() for x in [*given, *dit.state_dict().values()]]
    attributes = {name: set(vars(module)) for name, module in dit.named_modules()}
    first = dit(inputs.hidden_states, inputs.timestep, prompt_kv=kv).sample
    assert torch.equal(dit(inputs.hidden_states, inputs.timestep, prompt_kv=kv).sample, first)
    assert all(torch.equal(x, y) for x, y in zip([*given, *dit.state_dict().values()], before, strict=True))
    assert attributes == {name: set(vars(module)) for name, module in dit.named_modules()}


def test_arguments_that_do_not_fit_are_refused(random_dit: Any, dit_inputs: Any) -> None:
    dit, with_image = random_dit(num_layers=1), random_dit(image=True, num_layers=1)
    inputs = dit_inputs(text_len=32, image=True)
    x, t, text, image = inputs.plain
    kv = dit.prompt_kv(text)
    with pytest.raises(ValueError, match="not both, not neither"):
        dit(x, t)
    with pytest.raises(ValueError, match="not both, not neither"):
        dit(x, t, text, prompt_kv=kv)
    with pytest.raises(ValueError, match="1 prompts for 2 rows of latents"):
        dit(x, t, prompt_kv=kv.select([1]))
    with pytest.raises(ValueError, match="1 prompts for 2 rows of latents"):
        dit(x, t, text[:1])
    with pytest.raises(ValueError, match="leave image and lengths out"):
        dit(x, t, prompt_kv=kv, text_lengths=inputs.lengths)
    with pytest.raises(ValueError, match="prompt_kv is of 1 blocks, this transformer has 2"):
        random_dit()(x, t, prompt_kv=kv)
    with pytest.raises(ValueError, match="takes image embeds and was given none"):
        with_image(x, t, text)
    with pytest.raises(ValueError, match="takes no image embeds and was given some"):
        dit.prompt_kv(text, image)
    with pytest.raises(ValueError, match="give 2, one a frame"):
        dit(x, t, text, frame_positions=torch.arange(3))
    with pytest.raises(ValueError, match="cannot be cut into patches"):
        dit(x[..., :-1], t, text)
    with pytest.raises(ValueError, match="rope_max_seq_len 2"):
        random_dit(num_layers=1, rope_max_seq_len=2)(x, t, text)


@pytest.mark.parametrize("config", [{"qk_norm": "layer_norm"}, {"image_dim": 24}, {"added_kv_proj_dim": 96}])
def test_configurations_that_it_cannot_compute_are_refused(dit_config: Any, config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="qk_norm|do not go together"):
        ChronoEditDiT(**dit_config(**config))
