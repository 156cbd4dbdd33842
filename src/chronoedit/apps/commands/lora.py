"""`chronoedit lora`: what a LoRA file is, the same LoRA in another program's spelling, several as one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from chronoedit.apps.options import option

SHOWN_MODULES = 10


@dataclass(frozen=True)
class LoraInfo:
    """Say what a LoRA file is: dialect, ranks, alphas, modules, how much it changes, trigger words."""

    path: tyro.conf.Positional[Path]
    """The LoRA, safetensors in any dialect."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print it as one JSON object."""

    def run(self) -> int:
        """Print the description."""
        from dataclasses import asdict

        from chronoedit.lora.adapters import read_lora
        from chronoedit.lora.files import describe

        found = describe(read_lora(self.path))
        if self.json:
            print(json.dumps(asdict(found)))
            return 0
        print(f"{self.path}: a LoRA")
        for name, text in [("dialect", found.dialect), *found.rows(shown_modules=SHOWN_MODULES)]:
            print(f"  {name}: {text}")
        return 0


@dataclass(frozen=True, kw_only=True)
class LoraConvert:
    """Write a LoRA in another program's spelling."""

    source: tyro.conf.Positional[Path]
    """The LoRA, safetensors in any dialect."""

    output: Annotated[Path, option("the file to write", shown="FILE", short="o")]
    to: Annotated[str, option("diffusers, comfyui, kohya or diffsynth", shown="DIALECT")]

    def run(self) -> int:
        """Convert it."""
        from chronoedit.lora.adapters import read_lora
        from chronoedit.lora.files import write_lora

        _check_dialect(self.to)
        lora = read_lora(self.source)
        write_lora(lora.weights, self.output, self.to, lora.metadata)
        print(f"wrote {self.output} ({self.to}, from {lora.dialect})")
        return 0


@dataclass(frozen=True, kw_only=True)
class LoraMerge:
    """Write several LoRAs as one, each with its scale; nothing is approximated, ranks add up."""

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """The LoRAs, in any dialects."""

    output: Annotated[Path, option("the file to write", shown="FILE", short="o")]
    scale: Annotated[tuple[float, ...], option("one for each LoRA, or one for all", shown="X...")] = (1.0,)
    to: Annotated[str, option("diffusers, comfyui, kohya or diffsynth", shown="DIALECT")] = "diffusers"

    def run(self) -> int:
        """Merge them."""
        from chronoedit.lora.adapters import read_lora
        from chronoedit.lora.files import merge, trigger_words, write_lora

        _check_dialect(self.to)
        if len(self.scale) not in (1, len(self.sources)):
            raise ValueError(
                f"{len(self.scale)} values of --scale for {len(self.sources)} LoRAs; give one for each, or one for all"
            )
        scales = self.scale * len(self.sources) if len(self.scale) == 1 else self.scale
        loras = [(read_lora(path), scale) for path, scale in zip(self.sources, scales, strict=True)]
        words = ", ".join(dict.fromkeys(filter(None, (trigger_words(lora.metadata) for lora, _ in loras))))
        made_of = [{"sha256": lora.sha256, "scale": scale} for lora, scale in loras]
        metadata = {"merged_from": json.dumps(made_of)} | ({"trigger_words": words} if words else {})
        write_lora(merge(loras), self.output, self.to, metadata)
        print(f"wrote {self.output} ({self.to}, {len(loras)} LoRAs)")
        return 0


COMMANDS: dict[str, type[Any]] = {"lora info": LoraInfo, "lora convert": LoraConvert, "lora merge": LoraMerge}


def _check_dialect(name: str) -> None:
    from chronoedit.lora.dialects import LORA_DIALECTS

    if name not in LORA_DIALECTS:
        raise ValueError(f"--to {name}: choose one of {', '.join(LORA_DIALECTS)}")
