"""The most memory that an edit on the CPU takes, beside what the plan said: each case in a fresh process.

Measured is the process's peak less what it held once everything was imported and a small edit had been run, so that
what libraries keep for themselves is not counted. Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pages import measured_by, update
from pages import table as markdown_table

if TYPE_CHECKING:
    from chronoedit.runtime.plan import Plan

BILLION = {"heads": 16, "layers": 15, "autoencoder_dim": 16}
HEAD = ("model", "size", "latent frames", "fullest stage", "planned", "measured", "difference")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One case: a model and an edit of it; `reasoning` lasts through half of the steps and is shown."""

    model: str = "tiny"
    height: int = 256
    width: int = 256
    steps: int = 2
    reasoning: bool = False


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run: one case, printed as JSON, or the table."""

    case: Measured = Measured()
    table: bool = False
    billion: Annotated[bool, tyro.conf.arg(help="in the table, a random model of 1 B parameters too")] = False
    update: Annotated[Path | None, tyro.conf.arg(help="a page with a part `memory`, for the table")] = None


def status(key: str) -> int:
    """Bytes, as Linux tells them of this process."""
    found = re.search(key + r":\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return 1024 * int(found[1])


def planned(case: Measured) -> Plan:
    """The plan of the case on this CPU."""
    from chronoedit.runtime.plan import make_plan
    from chronoedit.runtime.plan_facts import read_facts
    from chronoedit.runtime.plan_stages import Case, Machine, Work

    work = Work(
        height=case.height,
        width=case.width,
        steps=case.steps,
        reasoning_steps=case.steps // 2 if case.reasoning else 0,
        trajectory=case.reasoning,
    )
    machine = Machine(kind="cpu", device_bytes=1 << 50, host_bytes=1 << 50)
    return make_plan(Case(facts=read_facts(case.model), work=work, machine=machine))


def run(case: Measured) -> dict[str, float]:
    """Edit once; the timings by stage."""
    from PIL import Image

    import chronoedit
    from chronoedit.request import EditRequest

    request = EditRequest(
        image=Image.new("RGB", (case.width, case.height), "gray"),
        prompt="pick up the yellow ball with the robot arm",
        height=case.height,
        width=case.width,
        num_inference_steps=case.steps,
        guidance_scale=2.0,
        reasoning=case.reasoning,
        num_reasoning_steps=case.steps // 2 if case.reasoning else None,
        return_trajectory=case.reasoning,
        seed=0,
    )
    return chronoedit.load(case.model, device="cpu").edit(request).timings_s


def measure(case: Measured) -> dict[str, object]:
    """The figures of one case, run in this process, which must be fresh."""
    import torch

    from chronoedit.model.checkpoint import write_random_checkpoint
    from chronoedit.runtime.machine import measure_throughput

    with tempfile.TemporaryDirectory() as folder:
        small = str(write_random_checkpoint(folder))
        run(Measured(model=small, height=64, width=64))
    flops_per_s = measure_throughput(torch.device("cpu"), torch.float32)
    plan = planned(case)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what imports left free would be used again, unseen
    before = status("VmRSS")
    CLEAR.write_text("5")  # the peak counts from here
    timings = run(case)
    peak = status("VmHWM") - before
    predicted = {stage.name: round(stage.seconds(flops_per_s), 3) for stage in plan.stages if stage.flops}
    flops = {stage.name: stage.flops for stage in plan.stages if stage.flops}
    return {
        **asdict(case),
        "planned_bytes": plan.device_bytes,
        "fullest": plan.peak("device").name,
        "measured_bytes": peak,
        "flops_per_s": flops_per_s,
        "flops": flops,
        "planned_s": predicted,
        "measured_s": timings,
    }


def fresh(case: Measured) -> dict[str, object]:
    """The same in a process of its own."""
    flags = [f"--case.{name}={value}" for name, value in asdict(case).items() if name != "reasoning"]
    flags.append("--case.reasoning" if case.reasoning else "--case.no-reasoning")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *flags], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def table(billion: bool) -> str:
    """The table of all cases as Markdown."""
    sizes = [(128, 128, False), (256, 256, False), (512, 512, False), (128, 128, True), (256, 256, True)]
    cases = [Measured(height=h, width=w, reasoning=reasoning) for h, w, reasoning in sizes]
    rows = [row(fresh(case)) for case in cases]
    return markdown_table(HEAD, [*rows, *(_of_a_billion() if billion else [])])


def _of_a_billion() -> list[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).with_name("random_checkpoint.py")
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in BILLION.items()]
        subprocess.run([sys.executable, str(script), "--folder", folder, *flags], check=True, capture_output=True)
        cases = [Measured(model=folder, height=128, width=128, steps=2, reasoning=each) for each in (False, True)]
        return [row({**fresh(case), "model": "1 B, random"}) for case in cases]


def row(figures: dict[str, object]) -> list[str]:
    """A row of the table."""
    planned_bytes, measured_bytes = float(str(figures["planned_bytes"])), float(str(figures["measured_bytes"]))
    return [
        str(figures["model"]),
        f"{figures['width']}×{figures['height']}",
        str(8 if figures["reasoning"] else 2),
        str(figures["fullest"]),
        f"{planned_bytes / 1e6:.0f} MB",
        f"{measured_bytes / 1e6:.0f} MB",
        f"{planned_bytes / measured_bytes - 1:+.0%}",
    ]


def main(options: Options) -> None:
    """Print one case as a line of JSON, or the table."""
    if options.table:
        facts = f"C library: MALLOC_MMAP_THRESHOLD_={os.environ.get('MALLOC_MMAP_THRESHOLD_', 'unset')}; fp32"
        text = f"{measured_by(facts)}\n{table(options.billion)}\n"
        if options.update:
            update(options.update, text, "memory")
        print(text)
    else:
        print(json.dumps(measure(options.case)))


if __name__ == "__main__":
    main(tyro.cli(Options))
