"""The plan of an edit, before anything is loaded: what lies where in each stage, the most it takes, and the time.

All of it is arithmetic on the facts of the model, the size of the edit and the memory there is. A way to arrange the
parts is an entry in `LAYOUTS`; what could be changed about an edit, so that it takes less, one in `CHANGES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from chronoedit.runtime.plan_stages import Case, Task, Work, tasks
from chronoedit.runtime.quantize import PRECISIONS

Place = Literal["device", "host"]

DOUBT = 0.1
"""Plans err by about so much: what is larger than the memory by less may still run, and is not refused."""

EFFICIENCY = {"transformer": 0.6, "autoencoder": 0.2, "text_encoder": 0.5, "image_encoder": 0.5}
"""Each part's share of the speed of one large matrix product: the first two measured on a CPU, with small models."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A way to arrange the parts: `on_device(used, loaded)` are those on the device while `used` works."""

    told: str
    flag: str
    on_device: Callable[[str, Sequence[str]], Sequence[str]]


LAYOUTS: Mapping[str, Layout] = {
    "together": Layout(told="all parts stay on the device", flag="", on_device=lambda used, loaded: loaded),
    "turns": Layout(
        told="parts take turns on the device", flag="--offload-model", on_device=lambda used, loaded: [used]
    ),
}


@dataclass(frozen=True)
class Row:
    """Something that lies in memory; of its bytes, `mapped` can be dropped and read from a file again."""

    what: str
    where: Place
    bytes: int
    mapped: int = 0


@dataclass(frozen=True)
class Stage:
    """A stage of an edit: what lies where when it takes most, and what it computes with which part."""

    name: str
    part: str
    rows: tuple[Row, ...]
    flops: float

    def bytes(self, where: Place) -> int:
        """All that lies there."""
        return sum(row.bytes for row in self.rows if row.where == where)

    def must_stay_bytes(self, where: Place) -> int:
        """Without what could be read from a file again."""
        return sum(row.bytes - row.mapped for row in self.rows if row.where == where)

    def seconds(self, flops_per_s: float) -> float:
        """About how long it takes, given the speed of a matrix product (`machine.measure_throughput`)."""
        return self.flops / (flops_per_s * EFFICIENCY[self.part]) if self.flops else 0.0


@dataclass(frozen=True)
class Plan:
    """The stages of an edit, in order."""

    case: Case
    stages: tuple[Stage, ...]

    def peak(self, where: Place) -> Stage:
        """The stage that takes most there."""
        return max(self.stages, key=lambda stage: stage.bytes(where))

    @property
    def device_bytes(self) -> int:
        """The most that lies on the device at once."""
        return self.peak("device").bytes("device")

    @property
    def host_bytes(self) -> int:
        """The most that lies in main memory at once, where that is not the device's own."""
        return self.peak("host").bytes("host")

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

    def seconds(self, flops_per_s: float) -> float:
        """About how long the edit takes, loading aside."""
        return sum(stage.seconds(flops_per_s) for stage in self.stages)


def make_plan(case: Case) -> Plan:
    """What an edit takes in each stage. Raises ValueError for a layout that there is not."""
    if case.layout not in LAYOUTS:
        raise ValueError(f"layout {case.layout!r} is unknown; choose from {', '.join(LAYOUTS)}")
    loaded: list[str] = []
    visited: set[str] = set()
    stages = []
    for task in tasks(case):
        loaded += [part for part in task.loads if part not in loaded]
        rows = [*_weights(case, task, loaded, visited), *_before_lora(case), *_activations(case, task)]
        stages.append(Stage(task.name, task.part, tuple(row for row in rows if row.bytes), task.flops))
        visited.add(task.part)
    return Plan(case, tuple(stages))


def _weights(case: Case, task: Task, loaded: Sequence[str], visited: set[str]) -> list[Row]:
    """Where the parts lie that have been loaded so far, and what of a file is read whole."""
    machine, rows = case.machine, []
    # A part is read into main memory where it is to take turns, and goes back there when its turn is over.
    on_device = LAYOUTS[case.layout].on_device(task.part, loaded)
    for part in loaded:
        component = case.facts.components[part]
        size = component.bytes(machine.weight_bytes)
        mapped = 0
        if part == "transformer" and case.precision is not None and task.name != "load":
            size = stored_bytes(case)
        elif machine.kind == "cpu" or (part not in on_device and part not in visited and not machine.shared):
            mapped = component.mapped_bytes(machine.weight_bytes)
        here: Place = "device" if machine.shared or part in on_device else "host"
        if part == "transformer" and task.name == "load" and case.precision is not None and not machine.shared:
            here = "host"  # where it is made smaller, layer by layer
        rows.append(Row(PARTS[part], here, size, mapped))
    if task.name == "load":
        whole = sum(case.facts.components[part].read_whole_bytes for part in loaded)
        rows.append(Row("a file while it is read", "device" if machine.shared else "host", whole))
    return rows


def stored_bytes(case: Case) -> int:
    """The transformer as it lies in memory once its blocks are stored in the case's precision."""
    shape = case.facts.transformer
    assert case.precision is not None
    blocks = round(shape.layers * shape.block_parameters * PRECISIONS[case.precision].bytes_a_weight)
    return blocks + case.machine.weight_bytes * shape.end_parameters


PARTS = {
    "transformer": "transformer",
    "autoencoder": "autoencoder",
    "text_encoder": "text encoder",
    "image_encoder": "image encoder",
}


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


def _turns(case: Case) -> Iterator[tuple[str, Case]]:
    if case.layout == "together" and not case.machine.shared:
        yield "parts that take turns (--offload-model)", replace(case, layout="turns")


def _fewer_bits(case: Case) -> Iterator[tuple[str, Case]]:
    names = {"int8": "weights in 8 bits (--precision int8)", "int4": "weights in 4 bits (--precision int4)"}
    for name, words in names.items() if case.precision is None else ():
        devices = PRECISIONS[name].devices
        if devices is None or case.machine.kind in devices:
            yield words, replace(case, precision=name)


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
    Change("turns", _turns),
    Change("fewer bits", _fewer_bits),
    Change("picture", _picture),
    Change("one", _one),
    Change("plain", _plain),
    Change("smaller", _smaller),
)


def choose(case: Case) -> Plan:
    """The first layout from the case's own on with which the edit fits; else one that may do; else the case's own."""
    names = list(LAYOUTS)
    names = [case.layout] if case.machine.shared else names[names.index(case.layout) :]
    plans = [make_plan(replace(case, layout=name)) for name in names]
    fitting = [plan for plan in plans if plan.fits]
    possible = [plan for plan in plans if not plan.hopeless]
    return fitting[0] if fitting else possible[-1] if possible else plans[0]


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
