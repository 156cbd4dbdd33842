"""`chronoedit plan`: what an edit would take, in memory and time, before anything is loaded."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from chronoedit import media
from chronoedit.apps.memory import bytes_of, machine_for, photo_size, planned, work_of
from chronoedit.apps.options import (
    DEFAULT_MODEL,
    MemoryFlags,
    ModelFlags,
    ReasoningFlags,
    SamplingFlags,
    Switch,
    build_request,
    option,
)
from chronoedit.apps.session import bad_arguments

if TYPE_CHECKING:
    from chronoedit.runtime.plan import Plan as PlanOfEdit
    from chronoedit.runtime.plan_stages import Machine

ASSUMED_PHOTO = (1280, 720)
"""(width, height) of a photo that is not given; its shape counts, the model chooses the size."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Say what an edit would take, in memory and time; nothing is loaded, and nothing downloaded.

    chronoedit plan --model-path nvidia/ChronoEdit-14B-Diffusers --vram 48GB --ram 64GB --enable-temporal-reasoning

    The flags are those of an edit. Exit code 1 when it fits in no way that an edit would take; what would fit is named.
    """

    input: Annotated[Path | None, option("the picture, for its shape (default: 16 to 9)", shown="FILE", short="i")] = (
        None
    )
    output: Annotated[
        Path, option("a video (.mp4) shows the reasoning, a picture does not", shown="FILE", short="o")
    ] = Path("output.mp4")
    variants: Annotated[int, option("how many", shown="N")] = 1
    sampling: SamplingFlags = SamplingFlags()
    reasoning: ReasoningFlags = ReasoningFlags()
    model: ModelFlags = ModelFlags()
    memory: MemoryFlags = MemoryFlags()
    vram: Annotated[str | None, option("free on a GPU (default: that of this machine)", shown="16GB")] = None
    ram: Annotated[str | None, option("free main memory (default: that of this machine)", shown="64GB")] = None
    tflops: Annotated[
        float | None, option("speed of its matrix products, for times (default: measured, where it is here)", shown="X")
    ] = None
    json: Annotated[Switch, option("print one JSON object")] = False

    def run(self) -> int:
        """Print the plan; 1 when it does not fit."""
        from chronoedit.runtime.plan_facts import read_facts

        with bad_arguments():
            self._check()
        facts = read_facts(self.model.model_path or DEFAULT_MODEL, self.model.base)
        size = ASSUMED_PHOTO if self.input is None else photo_size(self.input)
        work = work_of(self._request(), size, facts, self.model.lora_path)
        machine = self._machine()
        plan = planned(facts, work, machine, self.model, self.memory.memory)
        print(json.dumps(_figures(plan)) if self.json else "\n".join(self._lines(plan)))
        return int(plan.hopeless)

    def _check(self) -> None:
        self.model.check()
        if self.input is not None:
            media.load_image(self.input)
        media.check_suffix(self.output, media.IMAGE_SUFFIXES + media.VIDEO_SUFFIXES)
        if self.tflops is not None and not (math.isfinite(self.tflops) and self.tflops > 0):
            raise ValueError(f"--tflops is {self.tflops}; a number above 0 is expected")
        if self.vram is not None and self.model.device in ("cpu", "mps"):
            raise ValueError(f"--device {self.model.device} works in main memory; give --ram, and leave --vram out")

    def _request(self) -> Any:
        image = self.input or Path("photo.png")
        request = build_request(image, "(a plan)", "", self.sampling, self.reasoning, self.variants)
        video = self.output.suffix.lower() in media.VIDEO_SUFFIXES
        return replace(request, return_trajectory=request.reasoning and video)

    def _machine(self) -> Machine:
        """This machine, with what is said of another in its place."""
        from chronoedit.host import free_host_bytes
        from chronoedit.runtime.plan_stages import Machine

        ram = None if self.ram is None else bytes_of(self.ram, "--ram")
        if self.vram is not None:
            host = free_host_bytes() if ram is None else ram
            return Machine(kind="cuda", device_bytes=bytes_of(self.vram, "--vram"), host_bytes=host)
        machine = machine_for(self.model.device)
        if ram is None:
            return machine
        return replace(machine, host_bytes=ram, device_bytes=ram if machine.shared else machine.device_bytes)

    def _speed(self, plan: PlanOfEdit) -> float | None:
        """FLOP/s: as given, or measured where the device is here."""
        if self.tflops is not None:
            return self.tflops * 1e12
        if self.vram is not None:
            return None
        import torch

        from chronoedit.runtime.machine import measure_throughput

        device = torch.device(self.model.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return measure_throughput(device, torch.float32 if plan.case.machine.weight_bytes == 4 else torch.bfloat16)

    def _copies(self, plan: PlanOfEdit) -> float:
        """Bytes/s to the device: measured where it is here, else as most are."""
        from chronoedit.runtime.plan import COPY_BYTES_PER_S

        if self.vram is not None or plan.case.machine.kind not in ("cuda", "rocm"):
            return COPY_BYTES_PER_S
        import torch

        from chronoedit.runtime.machine import measure_copies

        return measure_copies(torch.device(self.model.device or "cuda"))

    def _lines(self, plan: PlanOfEdit) -> list[str]:
        from chronoedit.runtime.plan_lines import gain_lines, parts, refusal, table, verdict

        fullest, speed = plan.peak("device"), self._speed(plan)
        times = () if speed is None else (speed, self._copies(plan))
        lines = [_title(plan), "", *table(plan, *times), ""]
        lines.append(f"fullest is '{fullest.name}': {parts(fullest, 'device')}")
        lines += [refusal(plan)] if plan.hopeless else [verdict(plan), *(f"  {line}" for line in gain_lines(plan))]
        return lines


def _title(plan: PlanOfEdit) -> str:
    work, machine = plan.case.work, plan.case.machine
    reasoning = f", {work.reasoning_steps} of them with reasoning frames" if work.reasoning_steps else ""
    variants = f", {work.variants} variants" if work.variants > 1 else ""
    guided = "guided" if work.guided else "unguided"
    weights = plan.case.precision or ("fp32" if machine.weight_bytes == 4 else "bf16")
    return (
        f"{plan.case.facts.name} in {weights} on {machine.kind}: {work.width}x{work.height} px{variants}, "
        f"{work.steps} {guided} steps{reasoning}"
    )


def _figures(plan: PlanOfEdit) -> dict[str, Any]:
    stages = [
        {
            "name": stage.name,
            "device_bytes": plan.bytes(stage, "device"),
            "host_bytes": plan.bytes(stage, "host"),
            "flops": stage.flops,
            "copied_bytes": stage.copied + stage.streamed,
        }
        for stage in plan.stages
    ]
    return {
        "layout": plan.case.layout,
        "tile_px": plan.case.tile_px,
        "fits": plan.fits,
        "device_bytes": plan.device_bytes,
        "host_bytes": plan.host_bytes,
        "stages": stages,
    }


COMMANDS: dict[str, type[Any]] = {"plan": Plan}
