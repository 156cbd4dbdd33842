"""The plan of an edit, before anything is loaded: what lies where in each stage, the most it takes, and the time.

All of it is arithmetic on the facts of the model, the size of the edit and the memory there is. A way to arrange the
parts is an entry in `LAYOUTS`; what could be changed about an edit, so that it takes less, one in `CHANGES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from chronoedit.runtime.plan_stages import Case, Task, Work, tasks
from chronoedit.runtime.plan_weights import (
    LAYOUTS,
    Blocks,
    Layout,
    Place,
    Row,
    check_layout,
    next_layout,
    part_bytes,
    stored_bytes,
    streamed_blocks,
    weights,
)
from chronoedit.runtime.quantize import PRECISIONS

__all__ = [
    "LAYOUTS", "Layout", "Place", "Plan", "Row", "Stage", "check_layout", "choose", "choose_tiles", "gains", "least",
    "make_plan", "nearest", "next_layout", "stored_bytes",
]  # fmt: skip

DOUBT = 0.1
"""Plans err by about so much: what is larger than the memory by less may still run, and is not refused."""

EFFICIENCY = {"transformer": 0.6, "autoencoder": 0.2, "text_encoder": 0.5, "image_encoder": 0.5}
"""Each part's share of the speed of one large matrix product: the first two measured on a CPU, with small models."""

TILE_SIDES_PX = (512, 256)
"""Tiles of the autoencoder that are tried, in turn: at 1280 × 720 they compute 1.1 and 1.3 times as much."""

COPY_BYTES_PER_S = 20e9
"""From pinned main memory to a GPU, where it is not measured: about what 16 lanes of PCIe 4.0 carry."""

DISK_BYTES_PER_S = 2e9
"""From files, of which main memory cannot hold what is read before it is read again: an NVMe disk, cautiously."""


@dataclass(frozen=True)
class Stage:
    """A stage of an edit: what lies where when it takes most, and what it computes with which part.

    Bytes are `copied` to the device before it computes, and `streamed` while it does, or `from_disk`.
    """

    name: str
    part: str
    rows: tuple[Row, ...]
    flops: float
    copied: int = 0
    streamed: int = 0
    from_disk: bool = False

    def bytes(self, where: Place) -> int:
        """All that lies there."""
        return sum(row.bytes for row in self.rows if row.where == where)

    def must_stay_bytes(self, where: Place) -> int:
        """Without what could be read from a file again."""
        return sum(row.bytes - row.mapped for row in self.rows if row.where == where)

    def seconds(self, flops_per_s: float, bytes_per_s: float = COPY_BYTES_PER_S) -> float:
        """About how long it takes, given the speed of a matrix product (`machine.measure_throughput`) and of copies.

        What is streamed is copied while the device computes: the slower of both counts.
        """
        computing = self.flops / (flops_per_s * EFFICIENCY[self.part]) if self.flops else 0.0
        rate = min(bytes_per_s, DISK_BYTES_PER_S) if self.from_disk else bytes_per_s
        return self.copied / rate + max(computing, self.streamed / rate)


@dataclass(frozen=True)
class Plan:
    """The stages of an edit, in order."""

    case: Case
    stages: tuple[Stage, ...]

    def bytes(self, stage: Stage, where: Place) -> int:
        """What a stage takes there; where weights are to stay in their files, without what those hold."""
        return stage.must_stay_bytes(where) if LAYOUTS[self.case.layout].mapped else stage.bytes(where)

    def peak(self, where: Place) -> Stage:
        """The stage that takes most there."""
        return max(self.stages, key=lambda stage: self.bytes(stage, where))

    @property
    def device_bytes(self) -> int:
        """The most that lies on the device at once."""
        return self.bytes(self.peak("device"), "device")

    @property
    def host_bytes(self) -> int:
        """The most that lies in main memory at once, where that is not the device's own."""
        return self.bytes(self.peak("host"), "host")

    @property
    def fits(self) -> bool:
        """Whether all of it is less than there is."""
        machine = self.case.machine
        return self.device_bytes <= machine.device_bytes and self.host_bytes <= machine.host_bytes

    @property
    def hopeless(self) -> bool:
        """Whether it is more than there is, whatever is read from files again and however the plan errs."""
        machine = self.case.machine
        room: dict[Place, int] = {"device": machine.device_bytes, "host": machine.host_bytes}
        return any(
            (1 - DOUBT) * stage.must_stay_bytes(where) > free for where, free in room.items() for stage in self.stages
        )

    def seconds(self, flops_per_s: float, bytes_per_s: float = COPY_BYTES_PER_S) -> float:
        """About how long the edit takes, loading aside."""
        return sum(stage.seconds(flops_per_s, bytes_per_s) for stage in self.stages)


def make_plan(case: Case) -> Plan:
    """What an edit takes in each stage. Raises ValueError for a layout that there is not."""
    check_layout(case.layout)
    loaded: list[str] = []
    visited: set[str] = set()
    stages: list[Stage] = []
    for task in tasks(case):
        loaded += [part for part in task.loads if part not in loaded]
        rows = [*weights(case, task, loaded, visited), *_before_lora(case), *_activations(case, task)]
        comes = task.part != (stages[-1].part if stages else "")
        stages.append(_stage(case, task, tuple(row for row in rows if row.bytes), comes))
        visited.add(task.part)
    return Plan(case, tuple(stages))


def _stage(case: Case, task: Task, rows: tuple[Row, ...], comes: bool) -> Stage:
    """What is copied for it: the part that works, where parts come and go, and its blocks in each pass."""
    layout, machine = LAYOUTS[case.layout], case.machine
    copied = streamed = 0
    if task.part and not machine.shared and layout.on_device(task.part, []):
        blocks = streamed_blocks(case, task.part) if layout.streams else Blocks()
        streamed = task.passes * blocks.count * blocks.each
        copied = comes * (part_bytes(case, task.part) - blocks.whole + (1 + case.work.guided) * blocks.alone)
    # Where main memory cannot hold the files whole, what is needed next is what was dropped longest ago.
    from_disk = layout.mapped and sum(row.bytes for row in rows if row.where == "host") > machine.host_bytes
    return Stage(task.name, task.part, rows, task.flops, copied=copied, streamed=streamed, from_disk=from_disk)


def _before_lora(case: Case) -> list[Row]:
    size = case.work.fused_parameters * case.machine.weight_bytes
    return [Row("weights as they were before the LoRAs", "device" if case.machine.shared else "host", size)]


def _activations(case: Case, task: Task) -> list[Row]:
    kept = Row("kept for later stages", "device", task.kept)
    if case.machine.shared:  # pictures are made once all else is done
        return [kept, Row("to work in", "device", max(task.working, task.pictures))]
    return [kept, Row("to work in", "device", task.working), Row("pictures", "host", task.pictures)]


@dataclass(frozen=True)
class Change:
    """What makes an edit take less: `candidates` yields it from mild to strong, in words and as a case."""

    name: str
    candidates: Callable[[Case], Iterator[tuple[str, Case]]]


def _layouts(case: Case) -> Iterator[tuple[str, Case]]:
    words = {
        "turns": "parts that take turns",
        "stream": "a transformer that comes block by block",
        "disk": "weights that stay in their files",
    }
    name = None if case.machine.shared else next_layout(case.layout)
    while name is not None:
        yield f"{words[name]} ({LAYOUTS[name].flag})", replace(case, layout=name)
        name = next_layout(name)


def _fewer_bits(case: Case) -> Iterator[tuple[str, Case]]:
    names = {"int8": "weights in 8 bits (--precision int8)", "int4": "weights in 4 bits (--precision int4)"}
    stored_in_few = case.facts.components["transformer"].as_stored > 0
    for name, words in names.items() if case.precision is None and not stored_in_few else ():
        devices = PRECISIONS[name].devices
        if devices is None or case.machine.kind in devices:
            yield words, replace(case, precision=name)


def _tiles(case: Case) -> Iterator[tuple[str, Case]]:
    for side in TILE_SIDES_PX:
        smaller = max(case.work.height, case.work.width) if case.tile_px is None else case.tile_px
        if side < smaller and side % case.facts.autoencoder.scale_factor_spatial == 0:
            yield f"the autoencoder in tiles (--vae-tiling {side})", replace(case, tile_px=side)


def _picture(case: Case) -> Iterator[tuple[str, Case]]:
    if case.work.trajectory:
        yield "a picture in place of the video (-o FILE.png)", _with(case, replace(case.work, trajectory=False))


def _one(case: Case) -> Iterator[tuple[str, Case]]:
    if case.work.variants > 1:
        yield "one variant at a time (--variants 1)", _with(case, replace(case.work, variants=1))


def _plain(case: Case) -> Iterator[tuple[str, Case]]:
    if case.work.reasoning_steps:
        yield "no temporal reasoning", _with(case, replace(case.work, reasoning_steps=0, trajectory=False))


def _smaller(case: Case) -> Iterator[tuple[str, Case]]:
    multiple, work = case.facts.token_side_px, case.work
    for share in (0.875, 0.75, 0.625, 0.5, 0.375, 0.25):
        height, width = (max(multiple, round(share * side / multiple) * multiple) for side in (work.height, work.width))
        yield f"--height {height} --width {width}", _with(case, replace(work, height=height, width=width))


def _with(case: Case, work: Work) -> Case:
    return replace(case, work=work)


CHANGES = (
    Change("tiles", _tiles),
    Change("layout", _layouts),
    Change("fewer bits", _fewer_bits),
    Change("picture", _picture),
    Change("one", _one),
    Change("plain", _plain),
    Change("smaller", _smaller),
)


def choose(case: Case) -> Plan:
    """The first layout from the case's own on with which the edit fits; else one that may do; else the case's own.

    In each, the autoencoder goes in tiles where only that fits.
    """
    names = list(LAYOUTS)
    names = [case.layout] if case.machine.shared else names[names.index(case.layout) :]
    plans = [plan for name in names for plan in _in_tiles(replace(case, layout=name))]
    fitting = [plan for plan in plans if plan.fits]
    possible = [plan for plan in plans if not plan.hopeless]
    if fitting or not possible:
        return fitting[0] if fitting else plans[0]
    return min(possible, key=lambda plan: plan.device_bytes)


def choose_tiles(case: Case) -> Plan:
    """The case's own layout, the autoencoder in tiles where only that fits; where nothing does, what takes least."""
    plans = _in_tiles(case)
    return next((plan for plan in plans if plan.fits), min(plans, key=lambda plan: plan.device_bytes))


def _in_tiles(case: Case) -> list[Plan]:
    """As it is, and in tiles from large to small."""
    return [make_plan(each) for each in (case, *(tiled for _, tiled in _tiles(case)))]


def gains(plan: Plan) -> list[tuple[str, Plan]]:
    """Each single change, in its mildest form that fits, else its strongest, that lowers the peak: words and plan."""
    found = []
    for change in CHANGES:
        plans = [(words, make_plan(case)) for words, case in change.candidates(plan.case)]
        lower = [(words, each) for words, each in plans if each.device_bytes < plan.device_bytes]
        if lower:
            found.append(next((pair for pair in lower if pair[1].fits), lower[-1]))
    return found


def nearest(plan: Plan, most: int = 2) -> list[tuple[str, Plan]]:
    """The fewest and mildest changes with which the edit fits, in words and planned; at most so many ways."""
    for count in range(1, len(CHANGES) + 1):
        ways: list[tuple[str, Plan]] = []
        for chosen in combinations(CHANGES, count):
            way = next((way for way in _combined([], plan.case, chosen) if way[1].fits), None)
            ways += [] if way is None else [way]
        if ways:
            return ways[:most]
    return []


def least(plan: Plan) -> Plan:
    """The edit with every change, each at its strongest."""
    case = plan.case
    for change in CHANGES:
        case = ([changed for _, changed in change.candidates(case)] or [case])[-1]
    return make_plan(case)


def _combined(words: Sequence[str], case: Case, changes: Sequence[Change]) -> Iterator[tuple[str, Plan]]:
    """All ways to make these changes one after the other."""
    if not changes:
        yield " and ".join(words), make_plan(case)
        return
    for said, changed in changes[0].candidates(case):
        yield from _combined([*words, said], changed, changes[1:])
