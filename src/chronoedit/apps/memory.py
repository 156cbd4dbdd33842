"""An edit planned from its flags: on which machine, how much work, whether it fits."""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from chronoedit.apps.options import DEFAULT_MODEL, ModelFlags
from chronoedit.apps.session import check_device
from chronoedit.errors import CheckpointError, ChronoEditError
from chronoedit.request import EditRequest

if TYPE_CHECKING:
    from chronoedit.runtime.plan import Plan
    from chronoedit.runtime.plan_facts import ModelFacts
    from chronoedit.runtime.plan_stages import Machine, Work

logger = logging.getLogger(__name__)

UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
"""Of sizes that are given by hand; capitals and a space before them make no difference."""

LORA_FACTORS = re.compile(r"(?P<module>.+)\.lora[_.](?P<side>A|B|down|up)(?:\.\w+)*")


def bytes_of(text: str, flag: str) -> int:
    """A size such as 16GB, 16GiB or 16000MB. Raises ValueError that names the flag."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]+)\s*", text)
    if found is None or found[2].lower() not in UNITS:
        raise ValueError(f"{flag} {text!r} is no size; give a number and a unit, such as 16GB, 16GiB or 16000MB")
    return round(float(found[1]) * UNITS[found[2].lower()])


def machine_for(device: str | None) -> Machine:
    """This machine as it is, with the device that an edit would take. Raises ValueError for one that is not there."""
    check_device(device)
    import torch

    from chronoedit.host import free_host_bytes
    from chronoedit.runtime.machine import free_bytes
    from chronoedit.runtime.plan_stages import Machine

    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind: Literal["cuda", "rocm", "mps", "cpu"] = "cpu"
    if place.type == "cuda":
        kind = "rocm" if torch.version.hip else "cuda"
    elif place.type == "mps":
        kind = "mps"
    return Machine(kind=kind, device_bytes=free_bytes(place), host_bytes=free_host_bytes())


def work_of(request: EditRequest, photo_size: tuple[int, int], facts: ModelFacts, loras: Iterable[Path] = ()) -> Work:
    """What a request is to a plan; `photo_size` is (width, height). Raises ValueError for a size that cannot be."""
    from chronoedit.editing.prepare import edit_size, fill_defaults
    from chronoedit.editing.reason import plan_course
    from chronoedit.runtime.plan_stages import NO_PROMPT_KEYS, Work

    height, width = edit_size(request, photo_size, facts.settings.target_area, facts.token_side_px)
    complete = fill_defaults(request, facts.settings)
    course = plan_course(complete, facts.settings.reasoning_frames)
    reasoning_steps = course.num_steps if course.drop_at is None else course.drop_at
    assert complete.guidance_scale is not None
    return Work(
        height=height,
        width=width,
        steps=course.num_steps,
        reasoning_steps=reasoning_steps if course.reasons else 0,
        guided=complete.guidance_scale > 1,
        guided_until=complete.guidance_until,
        variants=request.num_variants,
        trajectory=course.trajectory,
        negative_keys=None if complete.negative_prompt else NO_PROMPT_KEYS,
        fused_parameters=fused_parameters(loras, beside=facts.components["transformer"].as_stored > 0),
    )


def fused_parameters(loras: Iterable[Path], *, beside: bool = False) -> int:
    """Weights that LoRA files change, from their headers: those of the file that changes most.

    Where LoRAs lie `beside` the weights, as they do with those in fp8 and GGUF: the numbers of all their factors.
    """
    sizes = [_changed_by(path, beside=beside) for path in loras]
    return sum(sizes) if beside else max(sizes, default=0)


def _changed_by(lora: Path, *, beside: bool) -> int:
    from chronoedit.model.headers import read_header

    outs, ins = {}, {}
    try:
        tensors = read_header(lora).tensors
    except CheckpointError:
        return 0  # what is wrong with it is told when it is fused
    for name, info in tensors.items():
        found = LORA_FACTORS.fullmatch(name)
        if found is not None and len(info.shape) > 1 and found["side"] in ("B", "up"):
            outs[found["module"]] = info.shape
        elif found is not None and len(info.shape) > 1:
            ins[found["module"]] = info.shape
    modules = outs.keys() & ins.keys()
    if beside:
        return sum(math.prod(outs[module]) + math.prod(ins[module]) for module in modules)
    return sum(outs[module][0] * math.prod(ins[module][1:]) for module in modules)


def photo_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture as it will be shown, its pixels unread."""
    from PIL import Image

    with Image.open(path) as picture:
        if picture.format == "PNG" and "exif" not in picture.info:
            return picture.size  # asked for its Exif, Pillow would read all of it, in case it stands at the end
        turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return picture.size[::-1] if turned else picture.size


def fitted(flags: ModelFlags, memory: str, request: EditRequest) -> ModelFlags:
    """The flags with which the edit fits, in the first layout that does or the one `memory` names; told in a line.

    With `memory` off, and for a model whose sizes are not known before it is downloaded, nothing is chosen.
    Raises ChronoEditError, which names the nearest that would fit, when the edit does not; else as the model's opening.
    """
    if memory == "off":
        return flags
    from chronoedit.runtime.plan_lines import refusal, verdict

    named = flags if memory == "auto" else replace(flags, layout=memory)
    facts = known_facts(flags.model_path or DEFAULT_MODEL, flags.base)
    if facts is None:
        return named
    machine = machine_for(flags.device)
    work = work_of(request, photo_size(Path(str(request.image))), facts, flags.lora_path)
    plan = planned(facts, work, machine, flags, memory)
    if plan.hopeless:
        raise ChronoEditError(f"{refusal(plan)}; or try all the same with --memory off")
    if (plan.case.layout, plan.case.tile_px) != (first_layout(flags, memory), flags.vae_tiling):
        print(f"note: {arranged(plan)}", file=sys.stderr)
    elif not plan.fits:
        print(f"note: the edit {verdict(plan)}", file=sys.stderr)
    return replace(named, layout=plan.case.layout, vae_tiling=plan.case.tile_px)


def planned(facts: ModelFacts, work: Work, machine: Machine, flags: ModelFlags, memory: str) -> Plan:
    """The plan of an edit with the flags: in the layout that `memory` names, else (auto) in the first that fits.

    In either, the autoencoder goes in tiles where only that fits.
    """
    from chronoedit.runtime.plan import choose, choose_tiles
    from chronoedit.runtime.plan_stages import Case

    layout = first_layout(flags, memory)
    case = Case(
        facts=facts, work=work, machine=machine, layout=layout, precision=flags.precision, tile_px=flags.vae_tiling
    )
    return choose(case) if memory == "auto" else choose_tiles(case)


def first_layout(flags: ModelFlags, memory: str) -> str:
    """The layout that is asked for, from which on "auto" looks for one that fits."""
    if memory in ("auto", "off"):
        return "turns" if flags.offload_model else "together"
    return memory


def arranged(plan: Plan) -> str:
    """How the parts are arranged so that the edit fits, in a sentence."""
    from chronoedit.runtime.plan_lines import arrangement, size

    free = size(plan.case.machine.device_bytes)
    return f"{arrangement(plan)}: {size(plan.device_bytes)} at once, of {free} free (--memory off keeps to the flags)"


def known_facts(name: str, base: str | None) -> ModelFacts | None:
    """The facts of a model; None for one of the hub that has not been downloaded, of which nothing is known."""
    from chronoedit.runtime.plan_facts import NotDownloaded, read_facts

    try:
        return read_facts(name, base)
    except NotDownloaded as error:
        logger.info("no plan: %s", error)
        return None
