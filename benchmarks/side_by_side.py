"""Side by side: our edit and diffusers' `ChronoEditPipeline` on one random checkpoint, every edit in a fresh process.

Plain edits have 2 latent frames; there the prompt's cached keys and values are what is saved. Edits with reasoning
through all steps have 8, and diffusers decodes the reasoning frames whether asked for or not; ours decodes the edit.
Each saving is printed beside the one that counting FLOPs predicts (`predict_flops.py`). Run: `make bench`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from pages import commit, machine_line, update

HERE = Path(__file__).parent
# tokens a forward -> height, width in px: an 8-fold autoencoder and 2 x 2 patches make a token of 16 x 16 px a frame
PLAIN = {128: (128, 128), 512: (256, 256), 2048: (512, 512), 7200: (720, 1280)}
REASONING = {128: (64, 64), 512: (128, 128), 2048: (256, 256), 7200: (480, 480)}
HEAD = (
    "| tokens | size | step: ours / theirs | step saved (predicted) | decode saved (predicted) "
    "| whole: ours / theirs | peak: ours / theirs | largest pixel difference |"
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What to measure; the defaults are those of `make bench`."""

    output_dir: Path = Path("out/bench")
    tokens: tuple[int, ...] = (128, 512, 2048, 7200)
    kinds: tuple[str, ...] = ("plain", "reasoning")
    steps: int = 6
    heads: int = 8
    layers: int = 4
    autoencoder_dim: int = 16
    update: Path | None = None
    """A Markdown file in which the text between the two `side by side` comments is replaced by the result."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One size: the two costs as `one_edit.py` gives them, and the prediction of `predict_flops.py`."""

    kind: str
    tokens: int
    height: int
    width: int
    ours: dict[str, float]
    theirs: dict[str, float]
    predicted: dict[str, float]
    largest_difference: int

    def saved(self, what: str) -> float:
        """The part of diffusers' time that ours does not take."""
        return 1 - self.ours[what] / self.theirs[what]

    def markdown(self) -> str:
        """The row of the table."""
        decode = f"{self.saved('decode_s'):.1%} ({self.predicted['decode_saving']:.1%})"
        cells = [
            str(self.tokens),
            f"{self.width}×{self.height}",
            ratio(self.ours["step_s"], self.theirs["step_s"], "s"),
            f"{self.saved('step_s'):.1%} ({self.predicted['step_saving']:.1%})",
            decode if self.kind == "reasoning" else "the same frames",
            ratio(self.ours["whole_s"], self.theirs["whole_s"], "s"),
            ratio(self.ours["peak_bytes"] / 2**20, self.theirs["peak_bytes"] / 2**20, "MiB"),
            f"{self.largest_difference} of 255",
        ]
        return "| " + " | ".join(cells) + " |"


def ratio(ours: float, theirs: float, unit: str) -> str:
    """`a / b unit = quotient`."""
    return f"{ours:.3g} / {theirs:.3g} {unit} = {ours / theirs:.3f}"


def run_script(script: str, **options: object) -> dict[str, float]:
    """Run a script of this folder in its own process and read the JSON of its last line."""
    command = [sys.executable, str(HERE / script)]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        command += [flag if value else f"--no-{flag[2:]}"] if isinstance(value, bool) else [flag, str(value)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(bench: Bench, checkpoint: Path, kind: str, tokens: int) -> Row:
    """Both engines and the prediction at one size."""
    height, width = (REASONING if kind == "reasoning" else PLAIN)[tokens]
    size = {"checkpoint": checkpoint, "height": height, "width": width, "reasoning": kind == "reasoning"}
    costs, pictures = {}, {}
    for engine in ("diffusers", "ours"):
        file = bench.output_dir / f"{kind}-{tokens}-{engine}.npy"
        costs[engine] = run_script("one_edit.py", engine=engine, steps=bench.steps, picture=file, **size)
        pictures[engine] = np.load(file).astype(int)
    return Row(
        kind=kind,
        tokens=tokens,
        height=height,
        width=width,
        ours=costs["ours"],
        theirs=costs["diffusers"],
        predicted=run_script("predict_flops.py", **size),
        largest_difference=int(np.abs(pictures["ours"] - pictures["diffusers"]).max()),
    )


def report(bench: Bench, rows: list[Row]) -> str:
    """The result as Markdown."""
    command = " ".join(["python benchmarks/side_by_side.py", *sys.argv[1:]])
    lines = [
        f"Command: `{command}`  ",
        f"Machine: {machine_line(int(rows[0].ours['threads']))}  ",
        f"Commit: {commit()}  ",
        f"Checkpoint: random, transformer of width {bench.heads * 128} with {bench.layers} blocks, 512 text and 257 "
        f"image tokens; autoencoder of width {bench.autoencoder_dim}; fp32; {bench.steps} steps, guided.",
    ]
    for kind, title in (
        ("plain", "Plain edit, 2 latent frames"),
        ("reasoning", "Reasoning through all steps, 8 latent frames, only the picture asked for"),
    ):
        chosen = [row.markdown() for row in rows if row.kind == kind]
        if chosen:
            lines += ["", f"**{title}**", "", HEAD, "|" + "---|" * (HEAD.count("|") - 1), *chosen]
    return "\n".join(lines) + "\n"


def main(bench: Bench) -> None:
    """Write the checkpoint, measure every size, and leave side_by_side.json and side_by_side.md."""
    bench.output_dir.mkdir(parents=True, exist_ok=True)
    checkpoint = bench.output_dir / "checkpoint"
    run_script(
        "random_checkpoint.py",
        folder=checkpoint,
        heads=bench.heads,
        layers=bench.layers,
        autoencoder_dim=bench.autoencoder_dim,
    )
    rows: list[Row] = []
    for kind in bench.kinds:
        for tokens in bench.tokens:
            rows.append(measure(bench, checkpoint, kind, tokens))
            print(kind, rows[-1].markdown(), flush=True)
    results: list[dict[str, Any]] = [asdict(row) for row in rows]
    (bench.output_dir / "side_by_side.json").write_text(json.dumps(results, indent=1))
    text = report(bench, rows)
    (bench.output_dir / "side_by_side.md").write_text(text, encoding="utf-8")
    if bench.update:
        update(bench.update, text, "side by side")
    print(f"\n{text}\nwritten: {bench.output_dir / 'side_by_side.md'} and .json")


if __name__ == "__main__":
    main(tyro.cli(Bench))
