"""Layouts: ways to arrange the parts of a model, and what of their weights lies where in each stage of an edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chronoedit.runtime import plan_activations as act
from chronoedit.runtime.plan_stages import Case, Task
from chronoedit.runtime.quantize import PRECISIONS

Place = Literal["device", "host"]

PARTS = {
    "transformer": "transformer",
    "autoencoder": "autoencoder",
    "text_encoder": "text encoder",
    "image_encoder": "image encoder",
}

SLABS = 2
"""Blocks on the device at once: one that computes, and the next."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A way to arrange the parts: `on_device(used, loaded)` are those on the device while `used` works.

    Where it `streams`, the transformer's blocks come one after the other (see `offload`). Where weights are `mapped`,
    they stay in their files, and what comes to the device is a copy.
    """

    told: str
    flag: str
    on_device: Callable[[str, Sequence[str]], Sequence[str]]
    streams: bool = False
    mapped: bool = False


LAYOUTS: Mapping[str, Layout] = {
    "together": Layout(told="all parts stay on the device", flag="", on_device=lambda used, loaded: loaded),
    "turns": Layout(
        told="parts take turns on the device", flag="--offload-model", on_device=lambda used, loaded: [used]
    ),
    "stream": Layout(
        told="parts take turns on the device, the transformer block by block",
        flag="--memory stream",
        on_device=lambda used, loaded: [used],
        streams=True,
    ),
    "disk": Layout(
        told="weights stay in their files, and come to the device block by block",
        flag="--memory disk",
        on_device=lambda used, loaded: [used],
        streams=True,
        mapped=True,
    ),
}
"""From the fastest to what takes least."""


def check_layout(name: str) -> str:
    """The name of a layout. Raises ValueError for one that there is not."""
    if name not in LAYOUTS:
        raise ValueError(f"layout {name!r} is unknown; choose from {', '.join(LAYOUTS)}")
    return name


def next_layout(name: str) -> str | None:
    """The layout that takes less than this one; None after the last. Raises ValueError for an unknown name."""
    later = list(LAYOUTS)[list(LAYOUTS).index(check_layout(name)) + 1 :]
    return later[0] if later else None


@dataclass(frozen=True)
class Row:
    """Something that lies in memory; of its bytes, `mapped` can be dropped and read from a file again."""

    what: str
    where: Place
    bytes: int
    mapped: int = 0


def weights(case: Case, task: Task, loaded: Sequence[str], visited: set[str]) -> list[Row]:
    """Where the parts lie that have been loaded so far."""
    machine, layout, rows = case.machine, LAYOUTS[case.layout], []
    # A part is read into main memory where it is to take turns, and goes back there when its turn is over.
    on_device = layout.on_device(task.part, loaded)
    for part in loaded:
        size, waits = part_bytes(case, part, stored=task.name != "load" or layout.mapped), part not in on_device
        moves = not machine.shared and not waits and not layout.streams
        if part == "transformer" and task.name == "load" and case.precision is not None:
            moves = False  # it waits in main memory to be made smaller, layer by layer
        untouched = layout.streams or machine.kind == "cpu" or (waits and part not in visited and not machine.shared)
        mapped = _mapped_bytes(case, part) if untouched and not moves else 0
        rows.append(Row(PARTS[part], "device" if moves or machine.shared else "host", size, mapped))
        rows += _visiting(case, part) if layout.streams and not waits else []
    return rows


def _mapped_bytes(case: Case, part: str) -> int:
    """What of a part lies in its files as it is computed with, or as it is, in a layout that does with that."""
    component, layout, weight_bytes = case.facts.components[part], LAYOUTS[case.layout], case.machine.weight_bytes
    pinned = part == "transformer" and layout.streams and not layout.mapped
    if part == "transformer" and (case.precision is not None or pinned):
        return 0
    if layout.mapped:
        fused = case.work.fused_parameters if part == "transformer" else 0
        return max(0, component.bytes(weight_bytes) - fused * weight_bytes)
    return component.mapped_bytes(weight_bytes)


def _visiting(case: Case, part: str) -> list[Row]:
    """Copies on the device of what waits elsewhere: a whole part, or all but its blocks, and slabs for those."""
    blocks, name = streamed_blocks(case, part), PARTS[part]
    staged = part != "transformer" or LAYOUTS[case.layout].mapped
    where: Place = "device" if case.machine.shared else "host"
    return [
        Row(f"{name}, what stays of it" if blocks.count else name, "device", part_bytes(case, part) - blocks.whole),
        Row(f"{SLABS} of its blocks", "device", SLABS * blocks.each),
        Row(f"{SLABS} of its blocks on their way", where, SLABS * blocks.each if staged else 0),
    ]


@dataclass(frozen=True)
class Blocks:
    """Of a part that is streamed: how many, bytes of `each` as it is copied, and of what all fetch for themselves."""

    count: int = 0
    each: int = 0
    alone: int = 0

    @property
    def whole(self) -> int:
        """Bytes of all, which do not stay on the device."""
        return self.count * self.each + self.alone


def streamed_blocks(case: Case, part: str) -> Blocks:
    """Those of a part, of which there are none where it comes as a whole."""
    facts, weight_bytes = case.facts, case.machine.weight_bytes
    if part == "transformer":
        shape = facts.transformer
        whole = part_bytes(case, part) - weight_bytes * shape.end_parameters
        alone = round(whole * shape.prompt_parameters / shape.block_parameters)
        return Blocks(shape.layers, (whole - alone) // shape.layers, alone)
    if part == "text_encoder":
        return Blocks(facts.text.layers, weight_bytes * act.block_parameters(facts.text))
    return Blocks()


def part_bytes(case: Case, part: str, stored: bool = True) -> int:
    """Of a part as it lies in memory; `stored` in the case's precision, as the transformer is after loading."""
    if part == "transformer" and case.precision is not None and stored:
        return stored_bytes(case)
    return case.facts.components[part].bytes(case.machine.weight_bytes)


def stored_bytes(case: Case) -> int:
    """The transformer as it lies in memory once its blocks are stored in the case's precision."""
    shape = case.facts.transformer
    assert case.precision is not None
    blocks = round(shape.layers * shape.block_parameters * PRECISIONS[case.precision].bytes_a_weight)
    return blocks + case.machine.weight_bytes * shape.end_parameters
