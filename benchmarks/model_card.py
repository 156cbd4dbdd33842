"""Write the embedded model's card from a finished run of the benchmark: every figure in it is read from that run.

chronoedit eval world --model tiny --both --output out/world
python benchmarks/model_card.py --run out/world --readme README.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import tyro
from safetensors import safe_open

from chronoedit.evaluation.gallery import item_row, verdict
from chronoedit.evaluation.run import read_records
from chronoedit.evaluation.summary import MOVING_FAMILIES, Record, difference, grouped, pairs_of
from chronoedit.media import atomic_path, contact_sheet, save_image
from pages import measured_by, points, share, table, update

TITLES = {
    "model": "with reasoning",
    "no_reasoning": "without reasoning",
    "copy": "copy the input",
    "teleport": "teleport to the mean",
    "oracle": "oracle",
}
Groups = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the card is made from, a run with `--both`.

    In `readme` the part `what it reaches` is written too, when it is given.
    """

    run: Path
    readme: Path | None = None
    folder: Path = Path("src/chronoedit/weights/tiny")


def main(card: Card) -> None:
    """Write README.md, successes.png and failures.png into the model's folder."""
    summary = json.loads((card.run / "summary.json").read_text(encoding="utf-8"))
    records = read_records(card.run)
    for name, success in (("successes", True), ("failures", False)):
        save_image(_sheet(records, card.run, success=success), card.folder / f"{name}.png")
    with atomic_path(card.folder / "README.md") as temporary:
        temporary.write_text(_text(card, summary, records), encoding="utf-8")
    if card.readme is not None:
        update(card.readme, reached(summary), "what it reaches")


def first_of_each_family(records: Sequence[Record], *, success: bool) -> list[Record]:
    """Of each family the first item by seed that succeeded, or failed, with reasoning."""
    found: dict[str, Record] = {}
    for record in records:
        if record["rows"]["model"]["success"] is success and record["rows"]["model"].get("error") is None:
            found.setdefault(record["family"], record)
    return [found[family] for family in sorted(found)]


def _sheet(records: Sequence[Record], run: Path, *, success: bool) -> PIL.Image.Image:
    chosen = first_of_each_family(records, success=success)
    if not chosen:
        return PIL.Image.new("RGB", (16, 16), "white")
    labels = [f"{record['prompt']} [{record['seed']}] {verdict(record)}" for record in chosen]
    return contact_sheet([item_row(record, run) for record in chosen], labels, ("input", "edit", "truth"))


def _text(card: Card, summary: Mapping[str, Any], records: Sequence[Record]) -> str:
    first, last = summary["seeds"]
    items = f"Items: {summary['items']}, seeds {first} to {last}; run by `{_command(summary)}`."
    sections = [
        INTRODUCTION.format(**_sizes(card.folder)),
        SCORES + "\n" + measured_by(items),
        "By split:\n\n" + _groups({row: _with_overall(summary, row) for row in TITLES}),
        "By family:\n\n" + _groups({row: _of_families(summary[row]) for row in TITLES}),
        "By edit:\n\n" + _groups(summary["edits"]),
        REASONING + "\n" + _paired(records),
        _spoiled(summary),
        PICTURES,
    ]
    shown = "\n\n".join(section.strip() for section in sections)
    return f"{TITLE}\n<!-- card: begin -->\n{shown}\n<!-- card: end -->\n{LIMITS}"


def _command(summary: Mapping[str, Any]) -> str:
    run = summary["run"]
    return f"chronoedit eval world --model {run['model']['name']} --both --items {run['items']}"


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


def _with_overall(summary: Mapping[str, Any], row: str) -> dict[str, Any]:
    return {"all items": summary[row]["overall"], **summary.get("splits", {}).get(row, {})}


def _of_families(groups: Mapping[str, Any]) -> dict[str, Any]:
    return {name: group for name, group in groups.items() if name != "overall"}


def _groups(groups: Mapping[str, Groups], rows: Iterable[str] = tuple(TITLES)) -> str:
    """Success of the rows of a run, a line a group."""
    shown = [row for row in rows if row in groups]
    names = groups["model"]
    lines = [
        [name.replace("_", " "), *(share(groups[row].get(name)) for row in shown), str(names[name]["items"])]
        for name in names
    ]
    return table(("success", *(TITLES[row] for row in shown), "items"), lines)


def _paired(records: Sequence[Record]) -> str:
    """Success with reasoning less success without, of all, of families that move and others, by split and family."""
    pairs = pairs_of(records, records, "model", "no_reasoning")
    parts: dict[str, Callable[[Record], bool]] = {
        "all items": lambda pair: True,
        "families that move": lambda pair: pair["family"] in MOVING_FAMILIES,
        "the other families": lambda pair: pair["family"] not in MOVING_FAMILIES,
    }
    chosen = {name: [pair for pair in pairs if belongs(pair)] for name, belongs in parts.items()}
    groups = {name: difference(found) for name, found in chosen.items() if found}
    for key in ("split", "family"):
        groups |= grouped(pairs, key, difference)
    return table(("", "points", "items"), [(name, points(each), str(each["items"])) for name, each in groups.items()])


def _spoiled(summary: Mapping[str, Any]) -> str:
    group = summary["spoiled"]["overall"]
    return (
        f"The scorer itself: of {group['items']} spoiled targets (an object moved by a radius, recoloured, missing, "
        f"doubled or of another kind) it passes {group['success']:.1%}."
    )


def reached(summary: Mapping[str, Any]) -> str:
    """What the README says of the model's success: by split, with and without reasoning, beside a copy."""
    rows = ("model", "no_reasoning", "copy", "oracle")
    return (
        REACHED.lstrip().format(items=summary["items"])
        + "\n"
        + _groups({row: _with_overall(summary, row) for row in TITLES}, rows)
        + "\n"
    )


TITLE = "# The embedded model, `tiny`\n"

INTRODUCTION = """
A small model of the published architecture that edits pictures of the project's own drawn world, 128×128, on any
computer. Transformer {transformer} parameters, text encoder {text_encoder}, autoencoder {vae}; {megabytes} in bf16.
Trained from nothing on scenes that `chronoedit.world` draws and simulates, by `recipes/cpu`: no photograph, no
published weight and no other data went into it. How it was trained, and for how long:
[docs/training.md](../../../../docs/training.md). Licence: Apache-2.0.
"""

SCORES = """
## Scores

On scenes that it was not trained on, read off the edited picture against the simulator's truth; a scene succeeds when
all of its checks hold. In brackets: 95 % intervals, by bootstrap over items.

Copy gives the input back. Teleport puts the subject where such edits end on average. The oracle is the truth through
the model's autoencoder, the most that it can reach. A held-out combination is a thing of a kind and colour that this
edit was never trained on; a held-out phrasing, words for the edit that training never used; a held-out count, more
things in the scene than training showed with this edit; hard, another gravity.
"""

REASONING = """
## What reasoning changes

Success with reasoning less success without, item by item, in points. An interval that holds 0 shows no difference. How
it depends on the number of steps that reason, with a table: [docs/physics.md](../../../../docs/physics.md).
"""

PICTURES = """
## Pictures

Chosen by rule: of each family the first item that succeeds, and the first that fails, with reasoning. A family that is
missing has none.

![successes: input, edit, truth](successes.png)

![failures: input, edit, truth](failures.png)
"""

REACHED = """
Of {items} scenes that it was not trained on so many edits pass the exact scores (with 95 % intervals); copying the
input passes where nothing is to change, and the oracle is the most that its autoencoder allows.
"""

LIMITS = """
## Limits

- It knows one drawn world: the families and edits named above, at 128×128. Of photographs, real faces, text or other
  drawings it has seen none, and makes nothing sensible of them.
- Its vocabulary is that world's. What lies outside of it, several edits at once, and other languages are not
  understood.
- What is held out in the splits was left out of training on purpose: the tables say how far it carries what it
  learned, and it should be trusted least where several things are unseen at once.
- Things can come out blurred, melt into each other, or change beside the edit; the failures above show how.
- What it imagines on the way is a likely course, not a simulation: things may blur, fade or jump in it.
- That reasoning helps is shown only where the interval of the difference excludes 0.
- Nothing that matters should depend on it.
"""

if __name__ == "__main__":
    main(tyro.cli(Card))
