"""The commands `world sample`, `world export` and `world new`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from PIL import Image

from chronoedit.apps.options import option
from chronoedit.apps.scene_files import SceneFiles
from chronoedit.errors import OutputError
from chronoedit.media import contact_sheet, encode_image, encode_video, save_image, write_files

if TYPE_CHECKING:
    from chronoedit.world import Item
    from chronoedit.world.plugins import SceneFile

SHEET_FRAMES = (0, 7, 14, 21, 28)
DEFAULT_COUNT = 12


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw scenes of the small world with their edits, and all that is true of them.

    With a family, or --count 1: input.png, target.png, mask.png, trajectory.mp4, item.json. Otherwise a folder for
    each seed, and sheet.png that shows them all.
    """

    output: Annotated[Path, option("the folder to write", shown="DIR", short="o")]
    family: Annotated[
        str | None, option("one family, such as table or street (default: each seed draws its own)", shown="NAME")
    ] = None
    edit: Annotated[str | None, option("one edit of that family, such as push", shown="NAME")] = None
    split: Annotated[
        str | None, option("scenes of one split, or of all in turn ('all', the default)", shown="NAME")
    ] = None
    scenes: SceneFiles = ()
    seed: Annotated[int, option("the first seed; from 100000 up they are kept for evaluation", shown="N")] = 0
    count: Annotated[int | None, option("how many seeds (default: 1 with a family, else 12)", shown="N")] = None
    size: Annotated[int, option("side of the pictures", shown="PX")] = 128

    def run(self) -> None:
        """Write the files. Raises ValueError for arguments, OutputError for what cannot be written."""
        from chronoedit.world.plugins import registered

        with registered(self.scenes):
            self._run()

    def _run(self) -> None:
        from chronoedit.world import sample_item
        from chronoedit.world.splits import FLAGS

        count = self._count()
        if self.split is not None and self.split not in FLAGS:
            raise ValueError(f"--split {self.split} is unknown; choose one of {', '.join(FLAGS)}")
        split = None if self.split is None else FLAGS[self.split]
        if self.edit is not None and self.family is None:
            raise ValueError(f"--edit {self.edit} without --family; name the family that the edit belongs to")
        items = [
            sample_item(seed, family=self.family, edit=self.edit, size=self.size, split=split)
            for seed in range(self.seed, self.seed + count)
        ]
        if count == 1:
            write_item(items[0], self.output)
            print(self.output)
            return
        for item in items:
            write_item(item, self.output / str(item.seed))
        sheet = self.output / "sheet.png"
        save_image(_sheet(items), sheet)
        print(sheet)

    def _count(self) -> int:
        if self.count is None:
            return DEFAULT_COUNT if self.family is None else 1
        if self.count < 1:
            raise ValueError(f"--count {self.count} is below 1")
        return self.count


@dataclass(frozen=True, kw_only=True)
class ExportWorld:
    """Write a training set: videos, and metadata.csv (key, video, prompt) as published training code reads it.

    Pairs are videos of 2 frames, clips of 29; columns long_prompt and split besides. The same command goes on where it
    stopped.
    """

    output: Annotated[Path, option("the folder to write", shown="DIR", short="o")]
    count: Annotated[int, option("how many items", shown="N")]
    first_seed: Annotated[int, option("the first seed; all must be below 100000", shown="N")] = 0
    clip_share: Annotated[float, option("share of clips, 0 to 1; the rest are pairs", shown="X")] = 0.5
    family: Annotated[
        str | None, option("one family, such as table or street (default: each seed draws its own)", shown="NAME")
    ] = None
    scenes: SceneFiles = ()
    size: Annotated[int, option("side of the pictures", shown="PX")] = 128

    def run(self) -> None:
        """Write what is missing. Raises ValueError for arguments, OutputError for what cannot be written."""
        from chronoedit.world.plugins import registered

        with registered(self.scenes) as files:
            self._run(files)

    def _run(self, files: tuple[SceneFile, ...]) -> None:
        from rich.console import Console
        from rich.progress import Progress

        from chronoedit.data.export import Export, export_world

        export = Export(
            count=self.count,
            first_seed=self.first_seed,
            clip_share=self.clip_share,
            family=self.family,
            size_px=self.size,
            scenes={family: file.sha256 for file in files for family in file.families},
        )
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("exporting", total=self.count)
            print(export_world(export, self.output, lambda done, total: bar.update(task, completed=done, total=total)))


@dataclass(frozen=True, kw_only=True)
class NewScene:
    """Write a file with a scene of your own: one that works as it is, to be changed bit by bit.

    docs/extending.md says how. The commands that draw or score scenes take the file with --scenes.
    """

    name: Annotated[tyro.conf.Positional[str], option("what the scene is called, such as garden_lamp", shown="NAME")]
    output: Annotated[Path | None, option("the file to write (default: NAME.py)", shown="FILE", short="o")] = None

    def run(self) -> None:
        """Write the file. Raises ValueError for a name that cannot be, OutputError where a file is there already."""
        from chronoedit.world.plugins import skeleton_of

        text = skeleton_of(self.name)
        path = self.output or Path(f"{self.name}.py")
        if path.suffix != ".py":
            raise ValueError(f"--output {path} is no Python file; give a name that ends in .py")
        if path.exists():
            raise OutputError(f"{path} exists already, and is kept; choose another --output")
        write_files({path: text.encode()})
        print(path)


def write_item(item: Item, folder: Path) -> None:
    """Write the five files of one item, or none of them."""
    pictures = {
        "input.png": Image.fromarray(item.input),
        "target.png": Image.fromarray(item.target),
        "mask.png": Image.fromarray(item.edit_mask),
    }
    files = {folder / name: encode_image(image.convert("RGB"), folder / name) for name, image in pictures.items()}
    video = folder / "trajectory.mp4"
    files[video] = encode_video(item.frames(), video)
    files[folder / "item.json"] = (json.dumps(item.to_json(), indent=1, ensure_ascii=False) + "\n").encode()
    write_files(files)


def _sheet(items: list[Item]) -> Image.Image:
    rows = [[Image.fromarray(item.frame(index)) for index in SHEET_FRAMES] for item in items]
    labels = [f"{item.prompt} [{item.family}, {item.edit}, {item.split}, seed {item.seed}]" for item in items]
    return contact_sheet(rows, labels=labels)


COMMANDS: dict[str, type[Any]] = {"world sample": Sample, "world export": ExportWorld, "world new": NewScene}
