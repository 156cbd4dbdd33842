"""`chronoedit data`: training sets on disk."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import Progress

from chronoedit.apps.encoding import SizeFlags, encode_with_bar, make_encoder
from chronoedit.apps.options import Switch, option

SHOWN_PROBLEMS = 50


@dataclass(frozen=True, kw_only=True)
class CheckData:
    """Say what is in a training set and what is wrong with it, row by row; exit code 1 when anything is.

    Read as they are: metadata.csv (published, DiffSynth), musubi's .jsonl, .parquet, WebDataset .tar, and folders of
    pairs with captions.
    """

    path: tyro.conf.Positional[Path]
    """The set: a folder, or its index file."""

    sheet: Annotated[Path | None, option("also draw the first rows into this picture", shown="FILE")] = None
    json: Annotated[Switch, option("print one JSON object")] = False

    def run(self) -> int:
        """Check it; 1 when there are problems."""
        from chronoedit.data.check import KINDS, check
        from chronoedit.data.formats import open_records
        from chronoedit.media import IMAGE_SUFFIXES, check_suffix, check_writable, save_image

        if self.sheet is not None:
            check_suffix(self.sheet, IMAGE_SUFFIXES)
            check_writable(self.sheet)
        found = open_records(self.path)
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("checking", total=len(found.records))
            report = check(found.records, lambda done, total: bar.update(task, completed=done))
        drawn = report.sheet()
        if self.sheet is not None and drawn is not None:
            save_image(drawn, self.sheet)
        counts = Counter(problem.kind for problem in report.problems)
        if self.json:
            problems = [asdict(problem) for problem in report.problems]
            print(json.dumps({"format": found.format, "records": report.records, "kinds": report.kinds,
                              "sizes": report.sizes, "problems": problems}))  # fmt: skip
            return int(bool(report.problems))
        print(f"{self.path}: {report.records} rows ({found.format})")
        print(f"  readable: {', '.join(f'{n} {kind}s' for kind, n in report.kinds.items()) or 'none'}")
        print(f"  sizes: {', '.join(f'{size} ({n})' for size, n in report.sizes.most_common(10)) or 'none'}")
        print(f"  problems: {', '.join(f'{n} {kind} ({KINDS[kind]})' for kind, n in counts.items()) or 'none'}")
        for problem in report.problems[:SHOWN_PROBLEMS]:
            print(f"    {problem.row}: {problem.kind}: {problem.message}")
        if len(report.problems) > SHOWN_PROBLEMS:
            print(f"    and {len(report.problems) - SHOWN_PROBLEMS} more; --json lists them all")
        if self.sheet is not None:
            print(f"  sheet: {self.sheet if drawn is not None else 'not drawn, nothing could be read'}")
        return int(bool(report.problems))


@dataclass(frozen=True, kw_only=True)
class CacheData:
    """Encode a training set once, so that training needs no encoder in memory; goes on where it stopped.

    Latents, conditions, text and image embeds are stored by content: a set that is extended or renamed keeps what it
    has. Give the same folder to train lora --cache.
    """

    path: tyro.conf.Positional[Path]
    """The set: a folder, or its index file."""

    output: Annotated[Path, option("the cache's folder", shown="DIR", short="o")]
    sizes: SizeFlags = field(default_factory=SizeFlags)
    dataset_base_path: Annotated[Path | None, option("where paths in the table start", shown="DIR")] = None
    model_path: Annotated[str, option("'tiny', a folder, or a hub id", shown="MODEL")] = "tiny"
    device: Annotated[str | None, option("cpu or cuda (default: cuda where there is one)", shown="NAME")] = None

    def run(self) -> int:
        """Encode what is missing."""
        self.sizes.check()
        from chronoedit.data.formats import open_records
        from chronoedit.model.checkpoint import open_checkpoint

        records = open_records(self.path, self.dataset_base_path).records
        components = open_checkpoint(self.model_path, device=self.device)
        encoder = make_encoder(components, self.sizes, self.output)
        before = len(encoder.cache)
        encode_with_bar(encoder, records)
        print(f"{self.output}: {len(records)} examples, {len(encoder.cache) - before} tensors added")
        return 0


COMMANDS: dict[str, type[Any]] = {"data check": CheckData, "data cache": CacheData}
