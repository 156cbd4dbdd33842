"""Write the embedded model's card from a finished run of the benchmark: every figure in it is read from that run.

chronoedit eval world --both --items 200 --output out/scores
python benchmarks/model_card.py --run out/scores --command "chronoedit eval world --both --items 200" --machine "..."
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from safetensors import safe_open

from chronoedit.evaluation.gallery import choose_items, item_row
from chronoedit.evaluation.run import read_records
from chronoedit.media import atomic_path, contact_sheet, save_image

TITLES = {
    "model": "with reasoning",
    "no_reasoning": "without reasoning",
    "copy": "copy the input",
    "oracle": "oracle (the truth through the autoencoder)",
}
SHOWN = 9


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the card is made from: a run with `--both`, the command and machine that gave it, and how it was trained."""

    run: Path
    command: str
    machine: str
    commit: str
    training: Path = Path("docs/training.md")
    folder: Path = Path("src/chronoedit/weights/tiny")


def main(card: Card) -> None:
    """Write README.md, successes.png and failures.png into the model's folder."""
    summary = json.loads((card.run / "summary.json").read_text(encoding="utf-8"))
    records = read_records(card.run)
    for name, success in (("successes", True), ("failures", False)):
        save_image(_gallery(records, card.run, success=success), card.folder / f"{name}.png")
    with atomic_path(card.folder / "README.md") as temporary:
        temporary.write_text(_text(card, summary), encoding="utf-8")


def _gallery(records: Sequence[Mapping[str, Any]], run: Path, *, success: bool) -> Any:
    chosen = choose_items(records, success=success, count=SHOWN)
    rows = [item_row(record, run) for record in chosen]
    return contact_sheet(rows, labels=[record["prompt"] for record in chosen], columns=("input", "edit", "truth"))


def _text(card: Card, summary: Mapping[str, Any]) -> str:
    parts = [INTRODUCTION.format(**_sizes(card.folder)), SCORES.format(**vars(card), items=summary["items"])]
    parts += [_families(summary), _edits(summary), _paired(summary), _spoiled(summary), PICTURES, LIMITS]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _sizes(folder: Path) -> dict[str, str]:
    sizes = {}
    for part, name in (
        ("transformer", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        with safe_open(folder / part / f"{name}.safetensors", framework="pt") as file:
            count = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
        sizes[part] = f"{count / 1e6:.1f} M"
    total = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    return {**sizes, "megabytes": f"{total / 1e6:.0f} MB"}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _share(group: Mapping[str, Any]) -> str:
    low, high = group["interval"]
    return f"{group['success']:.1%} ({low:.0%} to {high:.0%})"


def _families(summary: Mapping[str, Any]) -> str:
    groups = ["overall", *sorted(name for name in summary["model"] if name != "overall")]
    rows = [[title, *(_share(summary[row][group]) for group in groups)] for row, title in TITLES.items()]
    return _table(["success", *groups], rows)


def _edits(summary: Mapping[str, Any]) -> str:
    edits = summary["edits"]
    rows = [
        [
            name.replace("_", " "),
            *(f"{edits[row][name]['success']:.0%}" for row in TITLES),
            str(edits["model"][name]["items"]),
        ]
        for name in sorted(edits["model"])
    ]
    return "By kind of edit:\n\n" + _table(["edit", *TITLES.values(), "items"], rows)


def _paired(summary: Mapping[str, Any]) -> str:
    rows = []
    for name, group in summary["paired"].items():
        if name != "rows":
            low, high = group["interval"]
            rows.append([name, f"{group['difference']:+.1%}", f"{low:+.1%} to {high:+.1%}", str(group["items"])])
    text = "Success with reasoning less success without, item by item (`moving`: table and falling):\n\n"
    return text + _table(["", "difference", "95 % interval", "items"], rows)


def _spoiled(summary: Mapping[str, Any]) -> str:
    group = summary["spoiled"]["overall"]
    return (
        f"The scorer itself: of {group['items']} spoiled targets (an object moved by a radius, recoloured, missing, "
        f"doubled or of another kind) it passes {group['success']:.1%}."
    )


INTRODUCTION = """
# The embedded model, `tiny`

A small model of the published architecture that edits pictures of the project's own drawn world, 128×128, on any
computer. Transformer {transformer} parameters, text encoder {text_encoder}, autoencoder {vae}; {megabytes} in bf16.
Trained from nothing on scenes that `chronoedit.world` draws and simulates, by `recipes/cpu`: no photograph, no
published weight and no other data went into it. How it was trained, and for how long:
[docs/training.md](../../../../docs/training.md). Licence: Apache-2.0.
"""

SCORES = """
## Scores

On {items} scenes that it was not trained on (seeds from 100000), read off the edited picture against the simulator's
truth; a scene succeeds when all of its checks hold. 95 % bootstrap intervals. `{command}`, {machine}, commit {commit}.
"""

PICTURES = """
## Pictures

Chosen by rule: the first success of each kind of edit, then the second of each, and so on; the same for failures.

![successes: input, edit, truth](successes.png)

![failures: input, edit, truth](failures.png)
"""

LIMITS = """
## Limits

It knows balls, cubes, cones and cups in seven colours, a robot arm, ropes, and nine kinds of edit in about a dozen
phrasings each, at 128×128. It has seen no photograph, face or text and makes nothing sensible of them. Long prompts in
the style of the published model's training captions were not in its training. Failures are shown above: mostly two
things that should be stacked and are exchanged or melt into each other, and shapes that blur. That reasoning helps it
is not shown by these scores unless the interval of the difference excludes 0. Nothing that matters should depend on it.
"""

if __name__ == "__main__":
    main(tyro.cli(Card))
