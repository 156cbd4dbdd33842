"""Make the gallery: edits of the drawn world that an editor gets right and wrong, chosen by rule, never by hand.

python benchmarks/gallery.py --model tiny --output-dir docs/pictures --page docs/gallery.md

Of each family the first evaluation seeds are edited with reasoning and scored exactly. Shown are the first success of
each of two edits and the first failure; beside them chains of three edits (`gallery_chains`), and a banner with a row
a family. What the page says between its two `gallery` comments is written anew.
"""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

import chronoedit
from chronoedit.editing.chain import run_chain
from chronoedit.evaluation.attempts import attempts, pixels_of
from chronoedit.evaluation.physics import score
from chronoedit.evaluation.run import WorldRun
from chronoedit.media import write_files
from chronoedit.request import EditRequest
from chronoedit.world import Item
from gallery_chains import CHAINS, Chain, first_scene
from gallery_pictures import BANNER_PX, Cell, banner, chain, edit_cells, encode, strip
from pages import measured_by, part, table, update

FAMILIES: dict[str, str] = {
    "table": "A table and a robot arm",
    "falling": "Things that hang on ropes",
    "any": "Colours, and things that come and go",
    "toppling": "Towers, dominoes, ramps",
    "resizing": "Larger and smaller",
    "kitchen": "A kitchen",
    "tools": "Tools in a gripper",
    "street": "A street",
    "portrait": "Portraits",
}
IN_BANNER = ("table", "toppling", "kitchen", "street", "portrait", "tools")
SUCCESSES = 2  # shown of a family, each of another edit
BATCH = 4
REASONS = 3  # named of one failure
PAGE_CHARACTERS = 118
FAILED: dict[str, str] = {
    "present": "something that should be there is not found",
    "none_surplus": "there is something that should not be there",
    "kind": "a thing has turned into another kind of thing",
    "colour": "a colour is off",
    "size": "a thing is too large or too small",
    "placed": "a thing is not where, or not turned as, it should be",
    "changed": "what changed is not what should have",
    "unchanged_elsewhere": "the rest of the picture did not stay as it was",
    "still": "something changed away from the edit",
    "clean": "there is a smear or a ghost that is no thing",
    "solid": "two things stand in one another",
    "supported": "the thing hangs in the air, or sinks into what it stands on",
    "gripped": "the gripper does not hold the thing",
    "touched": "the gripper is not at the thing that it pushes",
    "on_ground": "the thing does not stand on the ground",
    "attached": "the thing does not sit where it belongs",
    "inside": "what should be in a vessel reaches out of it",
    "arm": "the robot arm is in the wrong place",
    "halves": "the halves are not equal",
    "poured": "too much or too little is poured",
    "seasoned": "there is too much or too little seasoning",
}
"""What each check of the scorer says where it does not hold."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What to make: `tries` seeds of each family, pictures into `output_dir`; no page is written without `page`.

    In `readme` the part `banner` shows the banner, when it is given.
    """

    model: str = "tiny"
    output_dir: Path = Path("out/gallery")
    page: Path | None = None
    readme: Path | None = None
    families: tuple[str, ...] = tuple(FAMILIES)
    chains: tuple[str, ...] = tuple(CHAINS)
    tries: int = 10

    def __post_init__(self) -> None:
        unknown = [name for name in self.chains if name not in CHAINS]
        if unknown:
            raise ValueError(f"there is no chain {unknown[0]!r}; choose from {', '.join(CHAINS)}")


@dataclass(frozen=True, kw_only=True)
class Try:
    """One seed: the item, what the editor made of it, and the checks of the scorer."""

    item: Item
    edited: Image.Image
    trajectory: np.ndarray
    checks: Mapping[str, bool]

    @property
    def success(self) -> bool:
        return all(self.checks.values())

    @property
    def before(self) -> Image.Image:
        return Image.fromarray(self.item.input)


def tries_of(editor: chronoedit.Editor, family: str, count: int) -> list[Try]:
    """The first evaluation seeds of a family, in distribution, asked and scored as `eval world` does it."""
    run = WorldRun(items=count, family=family, split="in-distribution", reasoning="on", trajectory=True)
    items = [run.item(run.first_seed + k) for k in range(count)]
    tries = []
    for at in range(0, count, BATCH):
        batch = items[at : at + BATCH]
        requests = [run.request(item, reasoning=True) for item in batch]
        for item, attempt in zip(batch, attempts(editor, requests), strict=True):
            assert attempt.image is not None and attempt.trajectory is not None
            checks = score(item, pixels_of(attempt.image, item)).checks
            tries.append(Try(item=item, edited=attempt.image, trajectory=attempt.trajectory, checks=checks))
    return tries


def successes(tries: Sequence[Try]) -> list[Try]:
    """In the order of the seeds, the first success of each edit that changes something; SUCCESSES at most."""
    first: dict[str, Try] = {}
    for each in tries:
        if each.success and each.item.subject is not None:
            first.setdefault(each.item.edit, each)
    return list(first.values())[:SUCCESSES]


def failure(tries: Sequence[Try]) -> Try | None:
    """The first that fails, whatever its edit."""
    return next((each for each in tries if not each.success), None)


def reasons(checks: Mapping[str, bool]) -> str:
    """What did not hold, in words."""
    said = [FAILED.get(name, name.replace("_", " ")) for name, held in checks.items() if not held]
    more = f"; and {len(said) - REASONS} more" if len(said) > REASONS else ""
    return "; ".join(said[:REASONS]) + more


def chained(editor: chronoedit.Editor, which: Chain) -> tuple[Item, list[str], Image.Image]:
    """The scene of a chain, its instructions, and the picture of its course."""
    item, words = first_scene(which)
    before = Image.fromarray(item.input)
    asked = [EditRequest(image=before, prompt=text, seed=item.seed, reasoning=True) for text in words]
    with tempfile.TemporaryDirectory(prefix="chronoedit-gallery-") as folder:
        results = [step.result for step in run_chain(editor, asked, folder)]
    after = [result.image for result in results if result is not None]
    return item, words, chain([before, *after], words)


@dataclass(frozen=True)
class Pictures:
    """The pictures that the page shows, by file name; `folder` is where they lie, as seen from the page."""

    folder: str
    files: dict[str, bytes] = field(default_factory=dict)

    def shown(self, name: str, picture: Image.Image, alt: str) -> str:
        """Keep a picture; the Markdown that shows it."""
        self.files[f"gallery-{name}.webp"] = encode(picture)
        return f"![{alt}]({self.folder}/gallery-{name}.webp)"


def make(editor: chronoedit.Editor, gallery: Gallery) -> str:
    """Write the pictures, and return what the page says of them; those of an earlier gallery go."""
    page = gallery.page or gallery.output_dir / "gallery.md"
    pictures = Pictures(Path(os.path.relpath(gallery.output_dir, page.parent)).as_posix())
    tried: dict[str, list[Try]] = {}
    for family in gallery.families:
        tried[family] = tries_of(editor, family, gallery.tries)
        print(f"{family}: {count_of(tried[family])}", flush=True)
    rows = [_banner_row(tried[family]) for family in IN_BANNER if family in tried]
    parts = [measured_by(f"Model: `{gallery.model}`").rstrip(), HEAD.format(tries=gallery.tries)]
    parts += [pictures.shown("banner", banner(rows), BANNER_ALT)] if rows else []
    parts += [_rates(tried), "## Edits"]
    parts += [_family(pictures, family, tries) for family, tries in tried.items()]
    parts += [CHAINS_HEAD, *(_chain(pictures, name, chained(editor, CHAINS[name])) for name in gallery.chains)]
    parts += [FAILURES_HEAD, *(_failure(pictures, family, tries) for family, tries in tried.items())]
    write_files({gallery.output_dir / name: data for name, data in pictures.files.items()})
    for path in gallery.output_dir.glob("gallery-*.webp"):
        if path.name not in pictures.files:
            path.unlink()
    return "\n\n".join(parts) + "\n"


def count_of(tries: Sequence[Try]) -> str:
    """How many succeed."""
    return f"{sum(each.success for each in tries)} of the first {len(tries)}"


def _rates(tried: Mapping[str, Sequence[Try]]) -> str:
    together = [each for tries in tried.values() for each in tries]
    rows = [(family, count_of(tries)) for family, tries in tried.items()]
    total = f"{sum(each.success for each in together)} of {len(together)}"
    return table(["family", "the edit is right in"], [*rows, ("all", total)])


def _family(pictures: Pictures, family: str, tries: Sequence[Try]) -> str:
    parts = [f"### {FAMILIES.get(family, family)}", f"`{family}`: right in {count_of(tries)}."]
    found = successes(tries)
    parts += [_strip(pictures, f"{family}-{k}", each) for k, each in enumerate(found, start=1)]
    return "\n\n".join(parts if found else [*parts, "No success to show."])


def _failure(pictures: Pictures, family: str, tries: Sequence[Try]) -> str:
    found = failure(tries)
    if found is None:
        return f"`{family}`: no failure among the first {len(tries)}."
    return f"{_strip(pictures, f'{family}-failure', found)}\n\n{_wrapped(f'What failed: {reasons(found.checks)}.')}"


def _strip(pictures: Pictures, name: str, each: Try) -> str:
    item = each.item
    picture = strip(each.before, each.trajectory, each.edited, Image.fromarray(item.target))
    alt = f"Input, four moments of the imagined trajectory, edit, truth: {item.prompt}"
    what = f"{item.family}, {item.edit.replace('_', ' ')}, seed {item.seed}"
    return f"**{item.prompt}** ({what})\n\n{pictures.shown(name, picture, alt)}"


def _chain(pictures: Pictures, name: str, made: tuple[Item, list[str], Image.Image]) -> str:
    item, words, picture = made
    alt = f"Before, and after each of: {'; '.join(words)}"
    told = _wrapped(f"`{name}`, seed {item.seed}: {CHAINS[name].rule}. Asked for: {'; '.join(words)}.")
    return f"{told}\n\n{pictures.shown(f'chain-{name}', picture, alt)}"


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, PAGE_CHARACTERS, break_on_hyphens=False))


def _banner_row(tries: Sequence[Try]) -> tuple[str, list[Cell]]:
    """The first success; where there is none the first failure, which then says so."""
    each = next(iter(successes(tries)), failure(tries) or tries[0])
    words = each.item.prompt if each.success else f"{each.item.prompt} (fails)"
    return words, edit_cells(each.before, each.trajectory, each.edited, (BANNER_PX, BANNER_PX))


HEAD = """Of each family the first {tries} evaluation seeds (from 100000, in distribution) are edited with reasoning,
each with its own seed as the noise's, and scored exactly. Shown are, in the order of the seeds, the first success of
each edit, two edits at most; edits that change nothing are scored and not shown. The picture with a row a family has
the first success of each; where a family has none, its first failure, so marked."""

CHAINS_HEAD = """## Three edits, one after the other

Each edit starts from the picture that the one before it has left. The scene is the first evaluation seed in which all
three can be said. The truth of a chain is not simulated, so these are not scored: look for yourself."""

BANNER_ALT = "One edit a row: the input, four moments of the imagined trajectory, the edit"

FAILURES_HEAD = """## Failures

The first failure of each family, whatever its edit, and what did not hold of what the scorer checks."""


def main(gallery: Gallery) -> None:
    """Make the gallery, and put its text into the page or print it."""
    if gallery.page is not None:
        part(gallery.page, "gallery")  # a page without the comments is told of before minutes of edits
    if gallery.readme is not None:
        part(gallery.readme, "banner")
    text = make(chronoedit.load(gallery.model), gallery)
    if gallery.page is None:
        print(f"\n{text}")
    else:
        update(gallery.page, text, "gallery")
    if gallery.readme is not None:
        folder = Path(os.path.relpath(gallery.output_dir, gallery.readme.parent)).as_posix()
        update(gallery.readme, f"![{BANNER_ALT}]({folder}/gallery-banner.webp)\n", "banner")
    print(f"written: {gallery.output_dir}")


if __name__ == "__main__":
    main(tyro.cli(Gallery))
