"""One item of the world: a picture, an instruction, and what is true of the edit. Same seed, same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .render import id_mask, render
from .scenes import FRAMES, SCENES, Scene
from .state import WORLD_SIZE, State

FIRST_EVALUATION_SEED = 100_000
WEIGHTS = {"table": 0.45, "falling": 0.2, "any": 0.35}
MAX_DRAWS = 200


@dataclass
class Item:
    """A scene with its edit, drawn at `size` px; pictures are uint8 size size 3, masks are size size."""

    seed: int
    size: int
    scene: Scene

    @property
    def family(self) -> str:
        return self.scene.family

    @property
    def edit(self) -> str:
        return self.scene.edit

    @property
    def prompt(self) -> str:
        return self.scene.prompt

    @property
    def subject(self) -> int | None:
        """Id of the body that the edit is about; None when nothing is to change."""
        return self.scene.subject

    @cached_property
    def start(self) -> State:
        return self.scene.state(0.0)

    @cached_property
    def end(self) -> State:
        return self.scene.state(1.0)

    @cached_property
    def input(self) -> np.ndarray:
        return render(self.start, self.size)

    @cached_property
    def target(self) -> np.ndarray:
        return render(self.end, self.size)

    @cached_property
    def input_ids(self) -> np.ndarray:
        return id_mask(self.start, self.size)

    @cached_property
    def target_ids(self) -> np.ndarray:
        return id_mask(self.end, self.size)

    @cached_property
    def edit_mask(self) -> np.ndarray:
        """Where the target differs from the input: bool size size."""
        return np.abs(self.input.astype(int) - self.target).max(axis=-1) > 8

    def frame(self, index: int) -> np.ndarray:
        """Frame `index` of 0 … 28: uint8 size size 3."""
        return render(self.scene.state(index / (FRAMES - 1)), self.size)

    def frames(self) -> np.ndarray:
        """The true trajectory: uint8 29 size size 3; the first frame is the input, the last the target."""
        return np.stack([self.frame(k) for k in range(FRAMES)])

    def to_json(self) -> dict:
        return {
            "seed": self.seed,
            "size": self.size,
            "family": self.family,
            "edit": self.edit,
            "prompt": self.prompt,
            "subject": self.subject,
            "checks": list(self.scene.checks),
            "start": self.start.to_json(),
            "end": self.end.to_json(),
        }


def sample_item(seed: int, *, family: str | None = None, edit: str | None = None, size: int = WORLD_SIZE) -> Item:
    """Draw the item of a seed.

    Without `family` the seed draws that too. Seeds from FIRST_EVALUATION_SEED up are for evaluation only.

    Raises:
        ValueError: unknown family or edit, negative seed, or a size that is not a positive multiple of 16.
    """
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; use 0 or more")
    if size <= 0 or size % 16:
        raise ValueError(f"size {size} is not a positive multiple of 16; use 128 or 256")
    if family is not None and family not in SCENES:
        raise ValueError(f"unknown family {family!r}; choose one of {', '.join(SCENES)}")
    rng = np.random.default_rng((seed, 20_251_004))
    drawn = str(rng.choice(list(WEIGHTS), p=list(WEIGHTS.values())))
    scene_class = SCENES[family or drawn]
    if edit is not None and edit not in scene_class.edits:
        choices = ", ".join(scene_class.edits)
        raise ValueError(f"family {scene_class.family!r} has no edit {edit!r}; choose one of {choices}")
    wanted = edit or str(rng.choice(scene_class.edits))
    for _ in range(MAX_DRAWS):
        scene = scene_class.sample(rng, wanted)
        if scene is not None:
            return Item(seed, size, scene)
    raise RuntimeError(f"seed {seed}: no {wanted} scene found in {MAX_DRAWS} draws")
