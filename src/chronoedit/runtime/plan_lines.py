"""A plan of an edit in words: a table of its stages, what would take less, and why one is refused."""

from __future__ import annotations

from collections.abc import Sequence

from chronoedit.runtime.plan import COPY_BYTES_PER_S, LAYOUTS, Place, Plan, Stage, gains, least, nearest

SMALLEST_SHOWN = 0.02
"""Share of a stage's bytes below which a row is not named."""

MEGABYTE, GIGABYTE = 10**6, 10**9


def size(count: int) -> str:
    """Bytes in a unit that fits: MB or GB, of powers of ten."""
    return f"{count / GIGABYTE:.1f} GB" if count >= GIGABYTE else f"{count / MEGABYTE:.0f} MB"


def table(plan: Plan, flops_per_s: float | None = None, bytes_per_s: float = COPY_BYTES_PER_S) -> list[str]:
    """The stages, a line each; with the speed of a matrix product, the time of each too, copies included."""
    rows = [_heading(plan, flops_per_s)]
    rows += [_line(stage, plan, flops_per_s, bytes_per_s) for stage in plan.stages]
    total = ["the most at once", size(plan.device_bytes)]
    total += [] if plan.case.machine.shared else [size(plan.host_bytes)]
    total += [] if flops_per_s is None else [f"{_seconds(plan.seconds(flops_per_s, bytes_per_s))} in all"]
    rows.append(total)
    return _aligned(rows)


def _heading(plan: Plan, flops_per_s: float | None) -> list[str]:
    places = ["memory"] if plan.case.machine.shared else ["device", "main memory"]
    return ["stage", *places, *([] if flops_per_s is None else ["about"])]


def _line(stage: Stage, plan: Plan, flops_per_s: float | None, bytes_per_s: float) -> list[str]:
    cells = [stage.name, size(plan.bytes(stage, "device"))]
    if not plan.case.machine.shared:
        cells.append(size(plan.bytes(stage, "host")))
    if flops_per_s is not None:
        cells.append(_seconds(stage.seconds(flops_per_s, bytes_per_s)) if stage.flops else "")
    return cells


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _seconds(seconds: float) -> str:
    return (
        f"{seconds:.2g} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def arrangement(plan: Plan) -> str:
    """How the parts lie and how the autoencoder works, where that is worth a word."""
    told = [] if plan.case.machine.shared else [LAYOUTS[plan.case.layout].told]
    if plan.case.tile_px is not None:
        told.append(f"the autoencoder works in tiles of {plan.case.tile_px} px")
    return ", and ".join(told)


def verdict(plan: Plan) -> str:
    """Whether it fits, in a sentence."""
    machine = plan.case.machine
    free = f"{size(machine.device_bytes)} free"
    if not machine.shared:
        free = f"{free} on the device, {size(machine.host_bytes)} in main memory"
    told = arrangement(plan)
    told = f", where {told}" if told else ""
    if plan.fits:
        return f"fits{told}: {free}"
    if not plan.hopeless:
        return f"may fit{told}, but it is close, or weights are read from their files again and again: {free}"
    return f"does not fit: {free}"


def parts(stage: Stage, where: Place) -> str:
    """What lies there in a stage, the largest first."""
    total = stage.bytes(where)
    rows = sorted((row for row in stage.rows if row.where == where), key=lambda row: -row.bytes)
    return ", ".join(f"{row.what} {size(row.bytes)}" for row in rows if row.bytes >= SMALLEST_SHOWN * total)


def gain_lines(plan: Plan) -> list[str]:
    """What would take less on the device, and how much it then took."""
    return [f"{size(each.device_bytes)} with {words}" for words, each in gains(plan)]


def refusal(plan: Plan) -> str:
    """Why an edit is refused, and the nearest that would fit."""
    machine = plan.case.machine
    where: Place = "device" if plan.device_bytes > machine.device_bytes or machine.shared else "host"
    stage = plan.peak(where)
    free = machine.device_bytes if where == "device" else machine.host_bytes
    place = "of main memory" if machine.shared or where == "host" else "on the device"
    needed = size(plan.bytes(stage, where))
    message = (
        f"this edit needs about {needed} {place} in the stage '{stage.name}', and {size(free)} are "
        f"free ({parts(stage, where)})."
    )
    ways = nearest(plan)
    if not ways:
        return (
            f"{message} Nothing that could be changed here makes it fit (with all of it, {_needs(least(plan))}); use a "
            "smaller model, or a larger machine"
        )
    return f"{message} It would fit with {'; or with '.join(f'{words}: {_needs(each)}' for words, each in ways)}"


def _needs(plan: Plan) -> str:
    if plan.case.machine.shared or not plan.host_bytes:
        return size(plan.device_bytes)
    return f"{size(plan.device_bytes)} and {size(plan.host_bytes)} of main memory"
