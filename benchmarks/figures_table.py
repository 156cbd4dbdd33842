"""The figures that depend on the embedded weights: the commands that make each, and where it stands.

In a command `{out}` is the folder of the present weights, so that runs of other weights are never gone on with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A marked part of a page."""

    page: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """How a figure is made: its commands in order, the figures that they read, and what they write.

    `minutes` are rough ones on two idle cores.
    """

    shows: str
    commands: tuple[str, ...]
    minutes: float
    parts: tuple[Part, ...] = ()
    files: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


TINY = "src/chronoedit/weights/tiny"
CACHES = "first-block:0.05 first-block:0.1 first-block:0.2 mag:0.05 mag:0.1 mag:0.2"
STAR_LORA = "{out}/star/lora/lora.safetensors"

FIGURES: Mapping[str, Figure] = {
    "magnitudes": Figure(
        shows="what the step cache `mag` knows of the model, in its settings",
        commands=("python benchmarks/step_caches.py --calibrate --keep --items 16",),
        files=(f"{TINY}/chronoedit.json",),
        minutes=1,
    ),
    "world": Figure(
        shows="the benchmark of 600 items, with and without reasoning, from which cards and pages are written",
        commands=("chronoedit eval world --model tiny --both --items 600 --workers 2 --output {out}/world",),
        needs=("magnitudes",),
        minutes=35,
    ),
    "reasoning": Figure(
        shows="what temporal reasoning buys where things move, by the number of reasoning steps",
        commands=(
            "python benchmarks/reasoning.py --items 600 --workers 2 --output {out}/reasoning --update docs/physics.md",
        ),
        parts=(Part("docs/physics.md", "reasoning"),),
        needs=("magnitudes",),
        minutes=45,
    ),
    "card": Figure(
        shows="the model card with its pictures, and what the README says of it",
        commands=("python benchmarks/model_card.py --run {out}/world --readme README.md",),
        parts=(Part(f"{TINY}/README.md", "card"), Part("README.md", "what it reaches")),
        files=(f"{TINY}/successes.png", f"{TINY}/failures.png"),
        needs=("world",),
        minutes=1,
    ),
    "gallery": Figure(
        shows="the page of edits with what is imagined on the way, and the picture of the README",
        commands=(
            "python benchmarks/gallery.py --model tiny --output-dir docs/pictures --page docs/gallery.md "
            "--readme README.md",
        ),
        parts=(Part("docs/gallery.md", "gallery"), Part("README.md", "banner")),
        files=("docs/pictures/gallery-banner.webp",),
        minutes=5,
    ),
    "training": Figure(
        shows="the course of the training that made the weights, from its logs beside the recipe",
        commands=("python benchmarks/training_curves.py --update docs/training.md",),
        parts=tuple(
            Part("docs/training.md", f"course of the {name}") for name in ("autoencoder", "decoder", "transformer")
        ),
        files=("docs/pictures/training.svg",),
        minutes=1,
    ),
    "step-caches": Figure(
        shows="success and seconds with step caches, docs/speed.md",
        commands=(
            f"python benchmarks/step_caches.py --seconds --items 6 --caches {CACHES} --output {{out}}/step_caches",
            f"python benchmarks/step_caches.py --items 200 --caches {CACHES} --output {{out}}/step_caches "
            "--update docs/speed.md",
        ),
        parts=(Part("docs/speed.md", "step caches"),),
        needs=("magnitudes",),
        minutes=40,
    ),
    "fewer-bits": Figure(
        shows="what weights in fewer bits lose, and what that does to edits",
        commands=(
            "python benchmarks/stored_files.py --folder {out}/files --formats Q4_0",
            "python benchmarks/fewer_bits.py --items 200 --files {out}/files/Q4_0.gguf --output {out}/fewer_bits "
            "--update docs/precision.md",
        ),
        parts=(Part("docs/precision.md", "fewer bits"),),
        needs=("magnitudes",),
        minutes=30,
    ),
    "decoder": Figure(
        shows="what the autoencoder loses when it decodes in bf16",
        commands=("python benchmarks/decoder_precision.py --items 48 --update docs/memory.md",),
        parts=(Part("docs/memory.md", "decoder in bf16"),),
        minutes=1,
    ),
    "memory": Figure(
        shows="planned and measured memory",
        commands=(
            "MALLOC_MMAP_THRESHOLD_=65536 OMP_NUM_THREADS=1 python benchmarks/memory.py --table --billion "
            "--update docs/benchmarks.md",
        ),
        parts=(Part("docs/benchmarks.md", "memory"),),
        minutes=10,
    ),
    "curves": Figure(
        shows="what an edit costs as one thing about it grows",
        commands=(
            "python benchmarks/curves.py --output-dir {out}/curves --update docs/benchmarks.md",
            "cp {out}/curves/curves.svg docs/pictures/cost_curves.svg",
        ),
        parts=(Part("docs/benchmarks.md", "curves"),),
        files=("docs/pictures/cost_curves.svg",),
        minutes=5,
    ),
    "batch": Figure(
        shows="a hundred edits at once, and one by one",
        commands=("python benchmarks/batch.py --repeats 1 --commands 3 --update docs/benchmarks.md",),
        parts=(Part("docs/benchmarks.md", "batch"),),
        minutes=8,
    ),
    "cold": Figure(
        shows="seconds of an edit in a fresh process, and of `make demo` on a fresh clone",
        commands=("python benchmarks/cold_edit.py --demo --update docs/benchmarks.md",),
        parts=(Part("docs/benchmarks.md", "cold edit"),),
        minutes=3,
    ),
    "star": Figure(
        shows="a LoRA that teaches the model a new edit, and what it forgets by it",
        commands=(
            "python examples/star/make_set.py --output {out}/star/set --pairs 64 --clips 32 --rehearsed 48 "
            "--rehearsed-clips 16",
            "OMP_NUM_THREADS=1 chronoedit train lora --config examples/star/star.toml "
            "--dataset-metadata-path {out}/star/set/metadata.jsonl --output-path {out}/star/lora",
            "chronoedit eval world --family star --items 200 --both --output {out}/star/before",
            f"chronoedit eval world --family star --items 200 --both --lora-path {STAR_LORA} "
            "--output {out}/star/after",
            f"chronoedit eval world --items 600 --lora-path {STAR_LORA} --output {{out}}/star/known_after",
            "python examples/star/figures.py curve {out}/star/lora docs/pictures/star_curve.svg",
            f"python examples/star/figures.py pictures {STAR_LORA} docs/pictures/star.png",
            "PYTHONPATH=benchmarks python examples/star/figures.py report {out}/star docs/benchmarks.md "
            "--known {out}/world --known-row no_reasoning",
        ),
        parts=(Part("docs/benchmarks.md", "star"),),
        files=("docs/pictures/star_curve.svg", "docs/pictures/star.png"),
        needs=("world",),
        minutes=75,
    ),
}

WITHOUT_WEIGHTS = ("ladder", "side by side", "ablations", "latent channels")
"""Marked parts that are of random weights, or of trainings of their own."""
