"""Weights that wait in main memory, or in their files, and are on the device only while they are worked with.

A part comes as a whole (`visiting`), or its blocks one after the other (`BlockStream`): while one computes, the next is
copied on a stream of its own. Two blocks lie on the device at once, in the same two slabs of bytes for as long as the
stream runs. The layers of the transformer that turn prompts into keys and values are not among them: they work once a
request, each fetches its weight for itself, and a quarter of what is copied is saved.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chronoedit.model.tensors import computed_in
from chronoedit.runtime.frozen import each_part, is_quantised

logger = logging.getLogger(__name__)

PROMPT_LAYERS = ("attn2.to_k", "attn2.to_v", "attn2.add_k_proj", "attn2.add_v_proj")
"""Of a block: they see prompts alone."""

PROMPT_NORMS = ("attn2.norm_k", "attn2.norm_added_k")
"""Of a block: small, and used with those layers outside of the block's forward pass; they stay on the device."""

BLOCKS = {"ChronoEditDiT": "blocks", "UMT5EncoderModel": "encoder.block"}
"""Where the blocks are of the parts that can be streamed, by the names of their classes."""

ALIGNMENT = 256
"""Bytes: kernels expect weights to begin so."""


@dataclass(frozen=True)
class Spot:
    """Where a module keeps a parameter or buffer."""

    table: dict[str, Any]
    name: str

    @property
    def tensor(self) -> Tensor:
        """What is there now."""
        return self.table[self.name]  # type: ignore[no-any-return]


def spots_of(module: nn.Module) -> list[Spot]:
    """Of all that a module and its children hold."""
    return [
        Spot(table, name)
        for child in module.modules()
        for table in (child._parameters, child._buffers)
        for name, tensor in table.items()
        if tensor is not None
    ]


@contextmanager
def visiting(spots: Iterable[Spot], device: torch.device) -> Iterator[None]:
    """Copies of these tensors on the device, in the type that is computed with, in their place; then as before.

    Nothing is copied that lies there in that type. A tensor of two names stays one.
    """
    homes = [(spot, spot.tensor) for spot in spots]
    copies: dict[int, Tensor] = {}
    try:
        for spot, home in homes:
            if id(home) not in copies:
                copies[id(home)] = _copied(home, device)
            spot.table[spot.name] = copies[id(home)]
        yield
    finally:
        for spot, home in homes:
            spot.table[spot.name] = home


def _copied(home: Tensor, device: torch.device) -> Tensor:
    fast, dtype = device.type == "cuda", computed_in(home)
    if is_quantised(home):
        copy = each_part(home.detach(), lambda part: part.to(device, non_blocking=fast))
    else:
        copy = home.detach().to(device, non_blocking=fast).to(dtype)
    return nn.Parameter(copy, requires_grad=False) if isinstance(home, nn.Parameter) else copy


@dataclass(frozen=True)
class Piece:
    """A dense tensor in a slab of bytes, as it is computed with."""

    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def end(self) -> int:
        """Of its bytes."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize

    def of(self, slab: Tensor) -> Tensor:
        """The tensor, as a view of the slab."""
        return slab[self.start : self.end].view(self.dtype).as_strided(self.shape, self.stride)


class Pack:
    """Tensors that are copied as one: their places in a slab of bytes, quantised ones by the parts of them."""

    def __init__(self, spots: Sequence[Spot]) -> None:
        self.spots = list(spots)
        self.pieces: list[Piece] = []
        self.slab: HostSlab | None = None
        for spot in self.spots:
            for part, dtype in _parts(spot.tensor):
                start = -(-self.nbytes // ALIGNMENT) * ALIGNMENT
                stride = part.stride() if _is_dense(part) else torch.empty(part.shape, device="meta").stride()
                self.pieces.append(Piece(start, dtype, tuple(part.shape), stride))

    @property
    def nbytes(self) -> int:
        """Of the whole."""
        return self.pieces[-1].end if self.pieces else 0

    def fill(self, slab: Tensor) -> None:
        """Copy the tensors into a slab on the CPU, each in the type that is computed with."""
        parts = (part for spot in self.spots for part, _ in _parts(spot.tensor))
        for piece, part in zip(self.pieces, parts, strict=True):
            piece.of(slab).copy_(part)

    def tensors(self, slab: Tensor) -> list[Tensor]:
        """The tensors that a slab holds, as views of it."""
        pieces = iter(self.pieces)
        return [_parameter(each_part(spot.tensor.detach(), lambda _: next(pieces).of(slab))) for spot in self.spots]

    def settle(self, device: torch.device) -> Tensor:
        """A slab in main memory in which the tensors lie from now on; the one of before where they still do.

        A LoRA that was fused puts other tensors in their place, and may keep those of before: so it is never
        written over.
        """
        if self.slab is None or not self._lies_in(self.slab.bytes):
            slab = HostSlab(self.nbytes, device)
            self.fill(slab.bytes)
            for spot, tensor in zip(self.spots, self.tensors(slab.bytes), strict=True):
                spot.table[spot.name] = tensor
            self.slab = slab
        return self.slab.bytes

    def _lies_in(self, slab: Tensor) -> bool:
        address = slab.untyped_storage().data_ptr()
        parts = (part for spot in self.spots for part, _ in _parts(spot.tensor))
        return all(part.untyped_storage().data_ptr() == address for part in parts)


def _parts(tensor: Tensor) -> list[tuple[Tensor, torch.dtype]]:
    """What a tensor is made of, each with the type that is computed with."""
    found: list[tuple[Tensor, torch.dtype]] = []

    def seen(part: Tensor) -> Tensor:
        found.append((part, part.dtype if is_quantised(tensor) else computed_in(tensor)))
        return part

    each_part(tensor.detach(), seen)
    return found


def _is_dense(tensor: Tensor) -> bool:
    """Whether its numbers lie side by side, in whatever order."""
    order = sorted(zip(tensor.stride(), tensor.shape, strict=True))
    expected = 1
    for stride, size in order:
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


class HostSlab:
    """Bytes in main memory; for CUDA they are pinned, so that they are copied while the device computes.

    torch's own pinned memory comes in powers of two, up to twice what is asked for; this is exactly as large.
    """

    def __init__(self, nbytes: int, device: torch.device) -> None:
        self.bytes = torch.empty(nbytes, dtype=torch.uint8)
        if device.type == "cuda" and nbytes and _pinned(self.bytes):
            weakref.finalize(self, _unpinned, self.bytes)


def _pinned(slab: Tensor) -> bool:
    failure = int(torch.cuda.cudart().cudaHostRegister(slab.data_ptr(), slab.nbytes, 0))  # type: ignore[no-untyped-call]
    if failure:
        logger.warning("%d bytes cannot be pinned (CUDA error %d): copies to the GPU are slower", slab.nbytes, failure)
    return not failure


def _unpinned(slab: Tensor) -> None:
    torch.cuda.cudart().cudaHostUnregister(slab.data_ptr())  # type: ignore[no-untyped-call]


class Slot:
    """A slab on the device that one block after the other is copied to; `holds` is the block that is there."""

    def __init__(self, nbytes: int, device: torch.device, staged: bool) -> None:
        self.bytes = torch.empty(nbytes, dtype=torch.uint8, device=device)
        self.staging = HostSlab(nbytes, device).bytes if staged else None
        self.holds: int | None = None
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.ready = self.free = None
        if self.stream is not None:
            self.ready, self.free = torch.cuda.Event(), torch.cuda.Event()
            self.freed()  # memory that the allocator hands out may be in use until the work before is done

    def fetch(self, index: int, pack: Pack, device: torch.device) -> None:
        """Begin to copy a block, once the one before it is no longer used."""
        self.holds = None
        if self.staging is None:
            host = pack.settle(device)
        else:
            host = self.staging[: pack.nbytes]
            if self.ready is not None:
                self.ready.synchronize()  # until then it is copied from
            pack.fill(host)
        into = self.bytes[: pack.nbytes]
        if self.stream is None:
            into.copy_(host)
        else:
            assert self.ready is not None and self.free is not None
            with torch.cuda.stream(self.stream):
                self.stream.wait_event(self.free)
                into.copy_(host, non_blocking=True)
                self.ready.record(self.stream)
        self.holds = index

    def wait(self) -> None:
        """Let the device compute what comes now after the copy."""
        if self.ready is not None:
            torch.cuda.current_stream(self.bytes.device).wait_event(self.ready)

    def freed(self) -> None:
        """Let the next copy come after what the device has been given to compute until now."""
        if self.free is not None:
            self.free.record(torch.cuda.current_stream(self.bytes.device))

    def close(self) -> None:
        """Wait for a copy under way: its slab is about to be handed out again."""
        if self.stream is not None:
            self.stream.synchronize()


def blocks_in(module: nn.Module) -> Sequence[nn.Module] | None:
    """The blocks of a part that can be streamed; None of another."""
    path = next((BLOCKS[kind.__name__] for kind in type(module).__mro__ if kind.__name__ in BLOCKS), None)
    return None if path is None else list(module.get_submodule(path).children())


class BlockStream:
    """The blocks of a part streamed to a device; the rest of it stays there while the stream runs.

    The result is that of the whole part on the device, bit for bit. Where `pinned`, the weights move into pinned
    memory, block by block, for a part that goes through its blocks again and again. Else they stay where they are,
    which is in their files for what was loaded so, and each block goes through one of two pinned slabs. Made once for
    a part, and used by `running` any number of times, LoRAs fused in between or not.
    """

    def __init__(self, part: nn.Module, device: torch.device, *, pinned: bool) -> None:
        self.part, self.device, self.pinned = part, device, pinned
        self._packs: list[Pack] = []
        self._slots: list[Slot] = []
        self._last = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """The part ready to compute on the device; afterwards all weights are where they wait.

        After an error too; what it had begun is dropped. Raises ValueError for a part that has no blocks.
        """
        blocks = blocks_in(self.part)
        if blocks is None:
            raise ValueError(f"{type(self.part).__name__} has no blocks to stream; only {', '.join(BLOCKS)} have")
        self._pack(blocks)
        with ExitStack() as stack:
            stack.enter_context(visiting(self._resident(blocks), self.device))
            stack.callback(self._close)
            nbytes = max((pack.nbytes for pack in self._packs), default=0)
            self._slots = [Slot(nbytes, self.device, staged=not self.pinned) for _ in range(2)]
            for index, block in enumerate(blocks):
                self._hook(stack, index, block)
                for layer in _named(block, PROMPT_LAYERS):
                    self._hook_alone(stack, layer)
            yield

    def _pack(self, blocks: Sequence[nn.Module]) -> None:
        """Find the blocks' weights; anew each time, since LoRAs and precisions change them."""
        packs = [Pack(_step_spots(block)) for block in blocks]
        for pack, before in zip(packs, self._packs, strict=False):
            pack.slab = before.slab if pack.pieces == before.pieces else None
        self._packs = packs
        if self.pinned:
            for pack in packs:
                pack.settle(self.device)

    def _resident(self, blocks: Sequence[nn.Module]) -> list[Spot]:
        passing = {id(spot.table) for block in blocks for spot in spots_of(block)}
        small = [spot for block in blocks for norm in _named(block, PROMPT_NORMS) for spot in spots_of(norm)]
        return [spot for spot in spots_of(self.part) if id(spot.table) not in passing] + small

    def _hook(self, stack: ExitStack, index: int, block: nn.Module) -> None:
        visit = ExitStack()

        def before(*_: Any) -> None:
            slot = self._slot_of(index)
            slot.wait()
            visit.enter_context(_swapped(self._packs[index], slot.bytes))

        def after(*_: Any) -> None:
            visit.close()
            self._slots[self._last].freed()
            following = (index + 1) % len(self._packs)
            if len(self._packs) > 1:
                self._fetch(following)

        stack.callback(visit.close)
        stack.callback(block.register_forward_pre_hook(before).remove)
        stack.callback(block.register_forward_hook(after).remove)

    def _hook_alone(self, stack: ExitStack, layer: nn.Module) -> None:
        visit = ExitStack()

        def before(*_: Any) -> None:
            visit.enter_context(visiting(spots_of(layer), self.device))

        stack.callback(visit.close)
        stack.callback(layer.register_forward_pre_hook(before).remove)
        stack.callback(layer.register_forward_hook(lambda *_: visit.close()).remove)

    def _slot_of(self, index: int) -> Slot:
        """The slot that holds a block; it is fetched where another was expected."""
        if all(slot.holds != index for slot in self._slots):
            self._fetch(index)
        self._last = next(k for k, slot in enumerate(self._slots) if slot.holds == index)
        return self._slots[self._last]

    def _fetch(self, index: int) -> None:
        """Begin to copy a block to the slot that was not used last."""
        if all(slot.holds != index for slot in self._slots):
            self._slots[1 - self._last].fetch(index, self._packs[index], self.device)

    def _close(self) -> None:
        for slot in self._slots:
            slot.close()
        self._slots = []


@contextmanager
def _swapped(pack: Pack, slab: Tensor) -> Iterator[None]:
    homes = [spot.tensor for spot in pack.spots]
    for spot, tensor in zip(pack.spots, pack.tensors(slab), strict=True):
        spot.table[spot.name] = tensor
    try:
        yield
    finally:
        for spot, home in zip(pack.spots, homes, strict=True):
            spot.table[spot.name] = home


def _named(block: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    modules = dict(block.named_modules())
    return [modules[name] for name in names if name in modules]


def _step_spots(block: nn.Module) -> list[Spot]:
    """Of what a block needs at each step."""
    others = _named(block, (*PROMPT_LAYERS, *PROMPT_NORMS))
    left_out = {id(spot.table) for module in others for spot in spots_of(module)}
    return [spot for spot in spots_of(block) if id(spot.table) not in left_out]
