"""The memory plan of a batch: one way to arrange the parts that does for its largest rows, and rows that cannot fit."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chronoedit.apps.memory import arranged, first_layout, known_facts, machine_for, planned, work_of
from chronoedit.apps.options import DEFAULT_MODEL, ModelFlags
from chronoedit.data.manifest import BatchItem, Refusal

if TYPE_CHECKING:
    from chronoedit.runtime.plan import Plan
    from chronoedit.runtime.plan_stages import Machine


@dataclass(frozen=True)
class Fitted:
    """The flags with which the rows that can be done fit, and the rows that cannot."""

    model: ModelFlags
    refused: tuple[Refusal, ...] = ()
    names: frozenset[str] = frozenset()


def fitted_rows(flags: ModelFlags, memory: str, groups: Sequence[Sequence[BatchItem]], video: bool) -> Fitted:
    """Plan an edit of each group, of one size and of the same settings; what is chosen is told in a line.

    With `memory` off, and for a model whose sizes are not known before it is downloaded, nothing is chosen or refused.
    """
    if memory == "off":
        return Fitted(flags)
    named = flags if memory == "auto" else replace(flags, layout=memory)
    facts = known_facts(flags.model_path or DEFAULT_MODEL, flags.base)
    if facts is None or not groups:
        return Fitted(named)
    machine = _share_of(machine_for(flags.device))
    plans = []
    for group in groups:
        request = replace(group[0].request, return_trajectory=video and group[0].request.reasoning)
        work = work_of(request, group[0].photo_size, facts, flags.lora_path)
        plans.append(planned(facts, work, machine, flags, memory))
    return _chosen(named, memory, groups, plans)


def _share_of(machine: Machine) -> Machine:
    """What one process can have of main memory, where a launcher has started several here, each with its own model."""
    count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device_bytes = machine.device_bytes // count if machine.shared else machine.device_bytes
    return replace(machine, device_bytes=device_bytes, host_bytes=machine.host_bytes // count)


def _chosen(flags: ModelFlags, memory: str, groups: Sequence[Sequence[BatchItem]], plans: Sequence[Plan]) -> Fitted:
    from chronoedit.runtime.plan import LAYOUTS
    from chronoedit.runtime.plan_lines import refusal, verdict

    refused: list[Refusal] = []
    names: set[str] = set()
    for group, plan in zip(groups, plans, strict=True):
        if plan.hopeless:
            reason = f"{refusal(plan)}; or try all the same with --memory off"
            refused += [Refusal(item.place, reason) for item in group]
            names |= {item.name for item in group}
    possible = [plan for plan in plans if not plan.hopeless]
    if not possible:
        return Fitted(flags, tuple(refused), frozenset(names))
    order = list(LAYOUTS)
    largest = max(possible, key=lambda plan: (order.index(plan.case.layout), plan.device_bytes))
    tiles = [plan.case.tile_px for plan in possible if plan.case.tile_px is not None]
    tile_px = min(tiles, default=flags.vae_tiling)
    if (largest.case.layout, tile_px) != (first_layout(flags, memory), flags.vae_tiling):
        print(f"note: for the largest rows {arranged(largest)}", file=sys.stderr)
    elif not largest.fits:
        print(f"note: the largest of the edits {verdict(largest)}", file=sys.stderr)
    model = replace(flags, layout=largest.case.layout, vae_tiling=tile_px)
    return Fitted(model, tuple(refused), frozenset(names))
