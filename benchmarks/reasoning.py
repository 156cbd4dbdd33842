"""What temporal reasoning buys where things move: the benchmark's items of moving families, edited with none of the
steps reasoning, a fifth, two fifths, and all.

Every number of reasoning steps edits the same items with the same seeds, so that differences are paired, item by item.
In the output `N.jsonl` has a line an item of N reasoning steps; a run that was stopped goes on. reasoning.json and
reasoning.md come last.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from chronoedit.apps.options import ModelFlags
from chronoedit.apps.session import opened
from chronoedit.apps.world_workers import InWorker, check_workers
from chronoedit.editing.editor import Editor
from chronoedit.evaluation.attempts import attempts, pixels_of
from chronoedit.evaluation.physics import score
from chronoedit.evaluation.run import WorldRun, write_json
from chronoedit.evaluation.statistics import bootstrap_mean, paired_difference
from chronoedit.evaluation.summary import MOVING_FAMILIES
from chronoedit.evaluation.workers import done_by
from chronoedit.ledger import Ledger, claim
from pages import measured_by, points, share, table, update

PLAIN = "none"
SHARES: Mapping[str, float] = {PLAIN: 0.0, "a fifth": 0.2, "two fifths": 0.4, "all": 1.0}
BATCH = 8
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure: those of so many items in which things move; `update` is a page with a part `reasoning`."""

    output: Path = Path("out/reasoning")
    model: str = "tiny"
    items: int = 600
    workers: int = 1
    num_inference_steps: int | None = None
    device: str | None = None
    update: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """Edits and scores items by their seeds, with so many reasoning steps of so many."""

    reasoning_steps: int
    steps: int

    def __call__(self, editor: Editor, seeds: Sequence[int]) -> list[dict[str, Any]]:
        run = WorldRun(
            reasoning="on" if self.reasoning_steps else "off",
            num_inference_steps=self.steps,
            num_reasoning_steps=self.reasoning_steps or None,
        )
        items = [run.item(seed) for seed in seeds]
        editor.cache.clear()  # or the pictures would be encoded for the first number of reasoning steps alone
        made = attempts(editor, [run.request(item, reasoning=self.reasoning_steps > 0) for item in items])
        records = []
        for item, attempt in zip(items, made, strict=True):
            assert attempt.image is not None  # only editors from elsewhere come without a picture
            found = score(item, pixels_of(attempt.image, item)).to_json()
            kept = {name: found[name] for name in ("success", "position_error")}
            about = {"seed": item.seed, "family": item.family, "edit": item.edit, "split": item.split}
            records.append({**about, **kept, "seconds": attempt.measured["time_s"] / len(items)})
        return records


def steps_of(total: int) -> dict[str, int]:
    """The reasoning steps of each share, of so many steps in all."""
    return {name: max(1, round(of_all * total)) if of_all else 0 for name, of_all in SHARES.items()}


def moving_seeds(count: int) -> list[int]:
    """The seeds of those among the benchmark's first items in which things move."""
    run = WorldRun(items=count)
    seeds = range(run.first_seed, run.first_seed + count)
    return [seed for seed in seeds if run.item(seed).family in MOVING_FAMILIES]


def measure(options: Options) -> tuple[dict[str, list[Record]], int]:
    """The records of each share, by seed, and how many steps an edit has."""
    flags = ModelFlags(model_path=options.model, device=options.device)
    check_workers(options.workers, options.device)
    with opened(flags) as editor:
        total = options.num_inference_steps or editor.components.settings.num_inference_steps
        claim(options.output / "run.json", {**editor.hashes, "steps": total}, "another run")
        factory = (lambda: editor) if options.workers == 1 else InWorker(flags=flags, workers=options.workers)
        seeds = moving_seeds(options.items)
        found: dict[str, list[Record]] = {}
        for name, reasoning_steps in steps_of(total).items():
            ledger = Ledger(options.output / f"{reasoning_steps}.jsonl")
            left = [seed for seed in seeds if str(seed) not in ledger]
            print(f"{name}: {len(left)} of {len(seeds)} items left", file=sys.stderr)
            work = Work(reasoning_steps=reasoning_steps, steps=total)
            batches = [left[at : at + BATCH] for at in range(0, len(left), BATCH)]
            for records in done_by(options.workers, factory, work, batches):
                for record in records:
                    ledger.append(str(record["seed"]), record)
            found[name] = [ledger.get(str(seed)) or {} for seed in seeds]
    return found, total


def figures(found: Mapping[str, Sequence[Record]], total: int) -> dict[str, Any]:
    """All figures as JSON data: by share, and by family and share; differences are to no reasoning."""
    plain = found[PLAIN]
    families = [family for family in MOVING_FAMILIES if _of_family(plain, family)]
    return {
        "items": len(plain),
        "steps": total,
        "shares": {
            name: {"reasoning_steps": steps_of(total)[name], **_of_group(records, plain), **_costs(records)}
            for name, records in found.items()
        },
        "families": {
            family: {
                name: _of_group(_of_family(records, family), _of_family(plain, family))
                for name, records in found.items()
            }
            for family in families
        },
    }


def _of_family(records: Sequence[Record], family: str) -> list[Record]:
    return [record for record in records if record["family"] == family]


def _of_group(records: Sequence[Record], plain: Sequence[Record]) -> dict[str, Any]:
    """Success, and the same less that without reasoning, item by item."""
    here, there = ([float(record["success"]) for record in each] for each in (records, plain))
    mean, less = bootstrap_mean(here), paired_difference(here, there)
    return {
        "success": mean.mean,
        "interval": [mean.low, mean.high],
        "items": mean.count,
        "less_none": {"difference": less.mean, "interval": [less.low, less.high], "items": less.count},
    }


def _costs(records: Sequence[Record]) -> dict[str, Any]:
    """How far subjects that are found are from their place, and seconds."""
    errors = [record["position_error"] for record in records if record["position_error"] is not None]
    return {
        "position_error": bootstrap_mean(errors).to_json() if errors else None,
        "seconds": sum(record["seconds"] for record in records) / len(records),
    }


def by_share(made: Mapping[str, Any]) -> str:
    """The table of all items."""
    rows = [
        [
            f"{name} ({group['reasoning_steps']} of {made['steps']})",
            share(group),
            "" if name == PLAIN else points(group["less_none"]),
            _place(group["position_error"]),
            f"{group['seconds']:.2f}",
        ]
        for name, group in made["shares"].items()
    ]
    return table(("steps with reasoning", "success", "less none, points", "off its place, radii", "seconds"), rows)


def _place(error: Mapping[str, Any] | None) -> str:
    if error is None:
        return "–"
    low, high = error["interval"]
    return f"{error['mean']:.2f} ({low:.2f} to {high:.2f})"


def by_family(made: Mapping[str, Any]) -> str:
    """The table of families: success without reasoning, and what each share of it adds."""
    names = [name for name in SHARES if name != PLAIN]
    rows = [
        [family, share(groups[PLAIN]), *(points(groups[name]["less_none"]) for name in names), _items(groups)]
        for family, groups in made["families"].items()
    ]
    return table(("family", PLAIN, *(f"{name}, less {PLAIN}" for name in names), "items"), rows)


def _items(groups: Mapping[str, Any]) -> str:
    return str(groups[PLAIN]["items"])


def main(options: Options) -> None:
    """Measure, write the figures, print the tables."""
    found, total = measure(options)
    made = figures(found, total)
    write_json(options.output / "reasoning.json", made)
    facts = (
        f"Items: those {made['items']} of the benchmark's first {options.items} in which things move; in brackets "
        f"95 % intervals; seconds an edit, of {BATCH} at once with {options.workers} process(es)."
    )
    text = f"{measured_by(facts)}\n{by_share(made)}\n\nBy family, in points:\n\n{by_family(made)}\n"
    (options.output / "reasoning.md").write_text(text, encoding="utf-8")
    if options.update:
        update(options.update, text, "reasoning")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options))
