"""`chronoedit eval pbench-items`: the items of PBench-Edit, from the public PBench."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from chronoedit.apps.options import Switch, option
from chronoedit.apps.vlm_flags import VlmFlags

SHOWN_FAILURES = 20


@dataclass(frozen=True, kw_only=True)
class PbenchItems:
    """Make items of PBench-Edit from the public PBench (nvidia/PBench on the hub): first frames and requests.

    Exit code 1 when rows of its domains had to be left out.
    """

    parquet: tyro.conf.Positional[Path]
    """The parquet file, or the folder with it."""

    output: Annotated[Path, option("the folder to write, for eval bench pbench-edit", shown="DIR", short="o")]
    requests: Annotated[
        Switch, option("have a vision-language model make a request of each caption (else the caption is it)")
    ] = False
    concurrency: Annotated[int, option("questions at once", shown="N")] = 4
    vlm: VlmFlags

    def run(self) -> int:
        """Write them."""
        from chronoedit.evaluation.pbench import pbench_items

        if self.concurrency < 1:
            raise ValueError(f"--concurrency {self.concurrency}; give 1 or more")
        if not self.parquet.exists():
            raise ValueError(f"there is no {self.parquet}; fetch nvidia/PBench from the hub first")
        model = self.vlm.open() if self.requests else None
        try:
            made = pbench_items(self.parquet, self.output, model=model, workers=self.concurrency)
        finally:
            if model is not None:
                model.close()
        print(made.table)
        print(f"{made.items} items; {made.other_domains} rows of other domains passed over", file=sys.stderr)
        for failure in made.failed[:SHOWN_FAILURES]:
            print(f"  left out: {failure}", file=sys.stderr)
        if len(made.failed) > SHOWN_FAILURES:
            print(f"  and {len(made.failed) - SHOWN_FAILURES} more", file=sys.stderr)
        return int(bool(made.failed))


COMMANDS: dict[str, type[Any]] = {"eval pbench-items": PbenchItems}
