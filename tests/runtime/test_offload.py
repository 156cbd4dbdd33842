"""Blocks that come one after the other: nothing that is computed changes, and only two of them are there at once."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chronoedit.lora import adapters
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.model.parts import Target, load_text_encoder, open_transformer
from chronoedit.model.tensors import computed_in, convert
from chronoedit.runtime import offload
from chronoedit.runtime.frozen import each_part
from chronoedit.runtime.offload import PROMPT_LAYERS, BlockStream, Slot, spots_of, visiting
from chronoedit.runtime.quantize import quantize

from ..editing.test_editor_loras import write_lora

CPU = torch.device("cpu")


def velocities(dit: ChronoEditDiT, given: dict[str, Tensor]) -> list[Tensor]:
    """With the prompt projected by each block, and projected before; two forwards of each."""
    text, image = given["encoder_hidden_states"], given["encoder_hidden_states_image"]
    step = {"hidden_states": given["hidden_states"], "timestep": given["timestep"]}
    with torch.no_grad():
        prompt = dit.prompt_kv(text, image)
        return [dit(**kwargs).sample for _ in range(2) for kwargs in (given, {**step, "prompt_kv": prompt})]


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters())


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize(
    ("dtype", "precision"),
    [(torch.float32, None), (torch.bfloat16, None), (torch.float32, "int8"), (torch.bfloat16, "fp8")],
)
def test_the_velocity_is_the_same_to_the_bit(
    make_transformer: Any, inputs: Any, dtype: torch.dtype, precision: str | None, pinned: bool
) -> None:
    dit, given = make_transformer(dtype, lora=False), inputs(dtype)
    if precision is not None:
        pytest.importorskip("torchao")
        quantize(dit, precision)
    expected, names = velocities(dit, given), list(dit.state_dict())
    stream = BlockStream(dit, CPU, pinned=pinned)
    for _ in range(2):
        with stream.running():
            found = velocities(dit, given)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert list(dit.state_dict()) == names
    assert all(torch.equal(a, b) for a, b in zip(velocities(dit, given), expected, strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in dit.modules())


def test_factors_of_a_lora_come_too(make_transformer: Any, inputs: Any) -> None:
    dit, given = make_transformer(), inputs()
    expected = velocities(dit, given)
    with BlockStream(dit, CPU, pinned=True).running():
        found = velocities(dit, given)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Each copy of a block to a slot: which, and how many bytes."""
    found: list[tuple[int, int]] = []
    real = Slot.fetch

    def fetch(self: Slot, index: int, pack: Any, device: torch.device) -> None:
        found.append((index, pack.nbytes))
        real(self, index, pack, device)

    monkeypatch.setattr(Slot, "fetch", fetch)
    return found


def test_what_is_copied_at_each_step(make_transformer: Any, inputs: Any, fetched: list[tuple[int, int]]) -> None:
    """Each block once a forward, ahead of its turn, without the layers that see prompts alone."""
    dit, given = make_transformer(lora=False), inputs()
    blocks = sum(p.nbytes for p in dit.blocks.parameters())
    prompt = sum(p.nbytes for name, p in dit.blocks.named_parameters() if any(part in name for part in PROMPT_LAYERS))
    step = {"hidden_states": given["hidden_states"], "timestep": given["timestep"]}
    with BlockStream(dit, CPU, pinned=True).running(), torch.no_grad():
        kv = dit.prompt_kv(given["encoder_hidden_states"], given["encoder_hidden_states_image"])
        assert fetched == []
        seen: list[tuple[int, list[int]]] = []
        for index, block in enumerate(dit.blocks):
            block.register_forward_pre_hook(lambda *_, k=index: seen.append((k, [i for i, _ in fetched])))
        for _ in range(3):
            dit(**step, prompt_kv=kv)
    assert [index for index, _ in fetched] == [0, 1, 2] * 3 + [0]  # the last for a forward that did not come
    assert all(copied[-1] == index for index, copied in seen)
    once = sum(nbytes for _, nbytes in fetched[:3])
    assert once == pytest.approx(blocks - prompt, rel=0.2) and prompt > 0.2 * blocks


def test_a_block_that_is_not_the_next_is_fetched(make_transformer: Any, inputs: Any) -> None:
    """A step cache leaves blocks out, and comes back to the first."""
    dit, given = make_transformer(lora=False), inputs()

    def some(x: Tensor, run: Any) -> Tensor:
        return run(run(run(x, 0, 1), 2, 3), 0, 1)

    with torch.no_grad():
        expected = dit(**given, through=some).sample
        with BlockStream(dit, CPU, pinned=False).running():
            assert torch.equal(dit(**given, through=some).sample, expected)


def test_two_blocks_are_there_at_once_and_none_afterwards(
    make_transformer: Any, inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slabs: list[weakref.ref[Tensor]] = []
    real = Slot.__init__

    def made(self: Slot, nbytes: int, device: torch.device, staged: bool) -> None:
        real(self, nbytes, device, staged)
        slabs.append(weakref.ref(self.bytes))

    monkeypatch.setattr(Slot, "__init__", made)
    dit, given, homes = make_transformer(lora=False), inputs(), []
    addresses = set()

    def used(block: nn.Module, *_: Any) -> None:
        addresses.add(block.attn1.to_q.weight.untyped_storage().data_ptr())

    with BlockStream(dit, CPU, pinned=True).running():
        homes = [p.untyped_storage().data_ptr() for p in dit.blocks.parameters()]
        for block in dit.blocks:
            block.register_forward_pre_hook(used)
        velocities(dit, given)
        assert len([slab for slab in slabs if slab() is not None]) == 2
    assert len(addresses) == 2 and not addresses & set(homes)
    assert [slab() for slab in slabs] == [None, None]


def test_weights_move_into_pinned_memory_one_block_after_the_other(make_transformer: Any) -> None:
    """No second copy of them stays, and what the norms and the layers of the prompt have is left where it is."""
    dit = make_transformer(lora=False)
    before = {name: weakref.ref(p) for name, p in dit.blocks.named_parameters()}
    alive: list[int] = []
    real = offload.Pack.settle

    def settle(self: Any, device: torch.device) -> Tensor:
        slab = real(self, device)
        alive.append(sum(tensor() is not None for tensor in before.values()))
        return slab

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offload.Pack, "settle", settle)
        with BlockStream(dit, CPU, pinned=True).running():
            pass
    assert alive == sorted(alive, reverse=True) and len(set(alive)) == 3
    left = {name for name, tensor in before.items() if tensor() is not None}
    assert left == {name for name in before if ".attn2." in name and any(f".{x}." in f".{name}" for x in (
        *PROMPT_LAYERS, "attn2.norm_k", "attn2.norm_added_k"))}  # fmt: skip


def test_what_waits_is_untouched_where_it_is_not_pinned(make_transformer: Any, inputs: Any) -> None:
    dit = make_transformer(lora=False)
    before = weights_of(dit)
    with BlockStream(dit, CPU, pinned=False).running():
        velocities(dit, inputs())
    after = weights_of(dit)
    assert before.keys() == after.keys() and all(after[name] is tensor for name, tensor in before.items())


@pytest.mark.parametrize("pinned", [False, True])
def test_after_an_error_all_is_as_before(make_transformer: Any, inputs: Any, pinned: bool) -> None:
    dit, given = make_transformer(lora=False), inputs()
    expected, stream = velocities(dit, given), BlockStream(dit, CPU, pinned=pinned)
    for layer in (dit.blocks[1].ffn, dit.blocks[1].attn2.to_k):  # in a block's forward, and in the prompt's
        with stream.running():
            pass
        homes = weights_of(dit.blocks)
        hook = layer.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyError("stop")))
        with pytest.raises(KeyError, match="stop"), stream.running():
            velocities(dit, given)
        hook.remove()
        assert all(tensor is homes[name] for name, tensor in dit.blocks.named_parameters())
        with stream.running():
            assert all(torch.equal(a, b) for a, b in zip(velocities(dit, given), expected, strict=True))


@pytest.mark.parametrize("pinned", [False, True])
def test_loras_are_fused_and_taken_out_between(random_checkpoint: Path, tmp_path: Path, pinned: bool) -> None:
    load = open_transformer(random_checkpoint / "transformer").load
    target = Target(torch.bfloat16, CPU, mapped=not pinned)
    plain, streamed = load(Target(torch.bfloat16, CPU)), load(target)
    lora = adapters.read_lora(write_lora(tmp_path / "a.safetensors", 1))
    stream = BlockStream(streamed, CPU, pinned=pinned)
    for scale in (None, 1.0, 0.5, None):
        for dit in (plain, streamed):
            adapters.unfuse(dit) if scale is None else adapters.fuse(dit, [(lora, scale)])
        with stream.running():
            for name, weight in streamed.named_parameters():
                assert torch.equal(weight.to(computed_in(weight)), plain.get_parameter(name)), (scale, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_stay_as_they_are_stored_until_they_are_used(random_checkpoint: Path, dtype: torch.dtype) -> None:
    folder = random_checkpoint / "text_encoder"
    mapped, plain = (load_text_encoder(folder, Target(dtype, CPU, mapped=each)) for each in (True, False))
    assert {p.dtype for p in mapped.parameters()} == {torch.float32}
    ids = torch.arange(7)[None]
    with torch.no_grad():
        expected = plain(ids).last_hidden_state
        for arranged in (BlockStream(mapped, CPU, pinned=False).running(), visiting(spots_of(mapped), CPU)):
            with arranged:
                assert torch.equal(mapped(ids).last_hidden_state, expected)
    for parameter in mapped.parameters():
        convert(parameter)
    assert {p.dtype for p in mapped.parameters()} == {dtype}
    with torch.no_grad():
        assert torch.equal(mapped(ids).last_hidden_state, expected)


def test_a_tensor_of_two_names_is_copied_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
            self.b.weight = self.a.weight
            self.register_buffer("c", torch.ones(1))

    tied, device = Tied(), torch.device("meta")
    with visiting(spots_of(tied), device):
        assert tied.a.weight is tied.b.weight and {p.device.type for p in tied.parameters()} == {"meta"}
        assert tied.c.device.type == "meta"
    assert tied.a.weight is tied.b.weight and tied.a.weight.device.type == tied.c.device.type == "cpu"


def test_compiled_blocks_are_streamed_without_being_compiled_again(make_transformer: Any, inputs: Any) -> None:
    """Weights that lie elsewhere each time are no other code."""
    from torch._dynamo.testing import CompileCounter

    dit, given, counter = make_transformer(lora=False), inputs(), CompileCounter()
    with torch.no_grad():
        prompt = dit.prompt_kv(given["encoder_hidden_states"], given["encoder_hidden_states_image"])
    for block in dit.blocks:
        block.forward = torch.compile(block.forward, fullgraph=True, dynamic=True, backend=counter)
    step = {"hidden_states": given["hidden_states"], "timestep": given["timestep"], "prompt_kv": prompt}
    with torch.no_grad():
        expected = dit(**step).sample
        compiled = counter.frame_count
        for pinned in (True, False):
            with BlockStream(dit, CPU, pinned=pinned).running():
                assert torch.equal(dit(**step).sample, expected)
    assert counter.frame_count == compiled > 0


def test_a_part_without_blocks_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="Linear has no blocks to stream"),
        BlockStream(nn.Linear(2, 2), CPU, pinned=True).running(),
    ):
        pass


@pytest.mark.parametrize("shape", [(3, 4), (1, 5), (2, 3, 4)])
def test_the_order_of_a_tensors_numbers_is_kept(shape: tuple[int, ...]) -> None:
    """torchao's kernels want some weights transposed in memory."""

    class Holder(nn.Module):
        def __init__(self, tensor: Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(tensor, requires_grad=False)

    tensor = torch.randn(shape).transpose(0, -1)
    for given in (tensor, torch.randn(8, *shape)[::2].transpose(0, -1), tensor[..., :1].expand(tensor.shape)):
        holder = Holder(given)
        pack = offload.Pack(spots_of(holder))
        slab = pack.settle(CPU)
        (found,) = pack.tensors(slab)
        assert torch.equal(found, given) and holder.weight.untyped_storage().data_ptr() == slab.data_ptr()
    assert offload.Pack(spots_of(Holder(tensor))).pieces[0].stride == tensor.stride()


@pytest.mark.gpu
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("precision", [None, "int8", "fp8"])
def test_on_a_gpu(make_transformer: Any, inputs: Any, pinned: bool, precision: str | None) -> None:
    device = torch.device("cuda")
    given = {name: tensor.to(device) for name, tensor in inputs(torch.bfloat16).items()}
    whole, streamed = (make_transformer(torch.bfloat16, lora=False) for _ in range(2))
    for dit in (whole, streamed):
        if precision is not None:
            quantize(dit, precision)
    expected = velocities(whole.to(device), given)
    stream = BlockStream(streamed, device, pinned=pinned)
    for _ in range(3):
        with stream.running():
            found = velocities(streamed, given)
            assert {p.device.type for p in streamed.blocks.parameters()} == {"cpu", "cuda"}  # norms of prompts
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert {p.device.type for p in streamed.parameters()} == {"cpu"}
    parts: list[Tensor] = []
    each_part(streamed.blocks[0].attn1.to_q.weight.detach(), lambda part: parts.append(part) or part)
    assert all(part.is_pinned() == pinned for part in parts)
