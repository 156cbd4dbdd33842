"""Steps of training at any size, on random weights and random data: seconds and peak memory, beside the plan's.

    python benchmarks/training_step.py                       # a small model, on whatever device there is
    python benchmarks/training_step.py --size 14b            # the published size: rank 32, 1024x1024, 5 frames

`--precision` is the frozen base's; each line is one configuration in a fresh process.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

PUBLISHED: dict[str, Any] = {"image_dim": 1280, "added_kv_proj_dim": 5120, "in_channels": 36, "out_channels": 16}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "num_attention_heads": 2, "attention_head_dim": 48, "num_layers": 2, "ffn_dim": 128, "text_dim": 64,
        "in_channels": 36, "out_channels": 16, "image_dim": 32, "added_kv_proj_dim": 96,
    },
    "small": {
        "num_attention_heads": 8, "attention_head_dim": 128, "num_layers": 8, "ffn_dim": 4096, "text_dim": 512,
        "in_channels": 36, "out_channels": 16, "image_dim": 256, "added_kv_proj_dim": 1024,
    },
    "14b": {
        "num_attention_heads": 40, "attention_head_dim": 128, "num_layers": 40, "ffn_dim": 13824, "text_dim": 4096,
        **PUBLISHED,
    },
}  # fmt: skip
TEXT_TOKENS, IMAGE_TOKENS, CELL_PX = 512, 257, 8


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is measured."""

    size: str = "small"
    kind: str = "lora"
    """lora or full"""
    height: int = 256
    width: int = 256
    latent_frames: int = 2
    rank: int = 32
    precision: tuple[str, ...] = ("native", "int8", "fp8")
    swap: int = 0
    checkpointing: bool = True
    offload: bool = False
    steps: int = 3
    device: str | None = None
    only: str | None = None
    """One precision, in this process; as the others are started."""

    def run(self) -> None:
        """Measure each precision in a process of its own, and print a table."""
        if self.size not in SIZES:
            raise SystemExit(f"there is no size {self.size!r}; choose from {', '.join(SIZES)}")
        if self.only is not None:
            print(json.dumps(self.measure(self.only)))
            return
        chosen = ("native",) if self.kind == "full" else self.precision
        rows = []
        for precision in chosen:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", precision]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"Command: `python benchmarks/training_step.py {' '.join(sys.argv[1:])}`  ")
        print(f"Machine: {rows[0]['device']}; Python {platform.python_version()}, torch {rows[0]['torch']}  ")
        print(f"Commit: {_commit()}\n")
        print("| base | weights and factors stored | step | peak memory | planned |\n|---|---:|---:|---:|---:|")
        for row in rows:
            print(
                f"| {row['precision']} | {row['stored_bytes'] / 1e9:.2f} GB | {row['step_s']:.3g} s "
                f"| {row['peak_bytes'] / 1e9:.2f} GB | {row['planned_bytes'] / 1e9:.2f} GB |"
            )

    def measure(self, precision: str) -> dict[str, Any]:
        """Steps of one configuration: median seconds after the first, and the peak."""
        import torch

        from chronoedit.runtime.frozen import stored_bytes
        from chronoedit.runtime.processes import Processes
        from chronoedit.training.facts import facts_of
        from chronoedit.training.plan import make_plan
        from chronoedit.training.state import peak_memory_bytes

        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        before = peak_memory_bytes(device)
        trainer = self._trainer(precision, device, dtype)
        seconds = []
        for step in range(self.steps + 1):
            began = time.perf_counter()
            trainer.step(step, 0.0)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        sources = trainer.sources
        arguments = {name: trainer.transformer.config[name] for name in trainer.transformer.config if name[0] != "_"}
        facts = facts_of(
            trainer.recipe, arguments, sources.components.settings, sources.examples, Processes(), device, dtype
        )
        name = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        )
        return {
            "precision": precision,
            "device": name,
            "torch": torch.__version__,
            "stored_bytes": stored_bytes(trainer.transformer),
            "step_s": sorted(seconds[1:])[len(seconds[1:]) // 2],
            "peak_bytes": peak_memory_bytes(device) - before,
            "planned_bytes": make_plan(facts).device_bytes,
        }

    def _trainer(self, precision: str, device: Any, dtype: Any) -> Any:
        import torch

        from chronoedit.training.finetune import Sources
        from chronoedit.training.full import FullRecipe, FullTrainer
        from chronoedit.training.lora import Adapter, LoraRecipe, LoraTrainer
        from chronoedit.training.recipes import Optimisation

        common: dict[str, Any] = {
            "optimisation": Optimisation(
                learning_rate=1e-4,
                batch_size=1,
                precision="bf16" if device.type == "cuda" and self.kind == "full" else "fp32",
            ),
            "gradient_checkpointing": self.checkpointing,
            "checkpointing_offload": self.offload,
        }
        apart = precision != "native" or self.swap > 0
        components, encoder, example = _made_up(self, SIZES[self.size], torch.device("cpu") if apart else device, dtype)
        sources = Sources(components, encoder, [example])
        if self.kind == "full":
            from chronoedit.runtime.processes import Processes

            return FullTrainer(FullRecipe(**common), sources, Processes(), device)
        base = None if precision == "native" else precision
        recipe = LoraRecipe(adapter=Adapter(rank=self.rank), base_precision=base, blocks_to_swap=self.swap, **common)
        return LoraTrainer(recipe, sources, device=device)


def _made_up(bench: Bench, config: Mapping[str, Any], device: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """A model, an encoder and one example, all of random numbers; weights are made where and as they are needed."""
    import torch

    from chronoedit.cache import TensorCache
    from chronoedit.data.encoded import Encoder, Example
    from chronoedit.data.loader import Bucket, Geometry
    from chronoedit.model.checkpoint import PART_NAMES, Components
    from chronoedit.model.dit import ChronoEditDiT
    from chronoedit.model.parts import Target
    from chronoedit.model.settings import ModelSettings

    with torch.device("meta"):
        transformer = ChronoEditDiT(**config)
    transformer = transformer.to(dtype).to_empty(device=device)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.normal_(std=0.02)
    settings = ModelSettings(name="random", max_sequence_length=TEXT_TOKENS)
    components = Components(
        settings,
        source="random",
        target=Target(dtype, device),
        loaders={},
        loaded={**dict.fromkeys(PART_NAMES), "transformer": transformer},
    )
    cache = TensorCache(Path(tempfile.mkdtemp()))
    frames, height, width = bench.latent_frames, bench.height // CELL_PX, bench.width // CELL_PX
    tensors = {
        "latents": torch.randn(config["out_channels"], frames, height, width),
        "condition": torch.randn(config["in_channels"] - config["out_channels"], frames, height, width),
        "text": torch.randn(TEXT_TOKENS, config["text_dim"]),
        "image": torch.randn(IMAGE_TOKENS, config["image_dim"]),
    }
    for name, tensor in tensors.items():
        cache.put(name, tensor)
    encoder = Encoder(components=components, cache=cache, geometry=Geometry(height=bench.height, width=bench.width))
    return components, encoder, Example(row="random", bucket=Bucket(frames, bench.height, bench.width), **{
        name: name for name in tensors
    })  # fmt: skip


def _commit() -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
    return done.stdout.strip() or os.environ.get("COMMIT", "unknown")


if __name__ == "__main__":
    tyro.cli(Bench).run()
