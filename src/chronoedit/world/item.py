"""One item of the world: a picture, an instruction, and what is true of the edit. Same seed, same bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .captions import long_prompt
from .grammar import speak
from .language import Said
from .render import id_mask, render
from .scenes import FRAMES, MIX, SCENES, Scene
from .splits import (
    BY_TURNS,
    HARD,
    IN_DISTRIBUTION,
    PHRASING,
    SPLITS,
    can_have,
    phrasings,
    split_of,
    split_of_seed,
    unseen_in,
)
from .state import WORLD_SIZE, Body, State

FIRST_EVALUATION_SEED = 100_000
MAX_DRAWS = 200


@dataclass
class Item:
    """A scene with its edit, drawn at `size` px; pictures are uint8 size size 3, masks are size size.

    `words` is the instruction, with the phrasing that it is made from and what stands in its slots: what the grammar
    has made of the scene's own.
    """

    seed: int
    size: int
    scene: Scene
    words: Said

    def state(self, t: float) -> State:
        """The scene at time t in [0, 1] of the edit."""
        return self.scene.state(t)

    @property
    def family(self) -> str:
        return self.scene.family

    @property
    def edit(self) -> str:
        return self.scene.edit

    @property
    def prompt(self) -> str:
        return str(self.words)

    @cached_property
    def long_prompt(self) -> str:
        """The instruction as training captions have it: 80 to 100 words on what changes, how, and what stays."""
        return long_prompt(self)

    @cached_property
    def split(self) -> str:
        """Its split, one of SPLITS.

        Raises ValueError where more than one thing is unseen in it, which no seed draws.
        """
        split = split_of(self)
        if split is None:
            raise ValueError(f"an item is of one split; in this one are unseen: {', '.join(unseen_in(self))}")
        return split

    @property
    def subject(self) -> int | None:
        """Id of the body that the edit is about; None when nothing is to change."""
        return self.scene.subject

    @cached_property
    def start(self) -> State:
        return self.state(0.0)

    @cached_property
    def end(self) -> State:
        return self.state(1.0)

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
    def edited(self) -> frozenset[int]:
        """Ids of the bodies that the edit is about: its subject, and those that come, go, change or move by a px."""
        before, after = ({body.id: body for body in state.bodies} for state in (self.start, self.end))
        others = {k for k in before.keys() | after.keys() if not _is_same(before.get(k), after.get(k))}
        return frozenset(others if self.subject is None else {*others, self.subject})

    @cached_property
    def edit_mask(self) -> np.ndarray:
        """Where the target differs from the input: bool size size."""
        return np.abs(self.input.astype(int) - self.target).max(axis=-1) > 8

    def frame(self, index: int) -> np.ndarray:
        """Frame `index` of 0 … 28: uint8 size size 3."""
        return render(self.state(index / (FRAMES - 1)), self.size)

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
            "long_prompt": self.long_prompt,
            "split": self.split,
            "subject": self.subject,
            "checks": list(self.scene.checks),
            "start": self.start.to_json(),
            "end": self.end.to_json(),
        }


def _is_same(before: Body | None, after: Body | None) -> bool:
    if before is None or after is None:
        return False
    there = replace(before, x=after.x, y=after.y, angle=after.angle)
    return there == after and math.hypot(after.x - before.x, after.y - before.y) < 1 > abs(after.angle - before.angle)


def sample_item(
    seed: int,
    *,
    family: str | None = None,
    edit: str | None = None,
    size: int = WORLD_SIZE,
    split: str | None = None,
) -> Item:
    """Draw the item of a seed.

    Without `family` the seed draws that too. Seeds from FIRST_EVALUATION_SEED up are for evaluation only. An item is of
    a `split`, one of SPLITS; without one, or with BY_TURNS, training seeds draw in distribution and the others from
    each split in turn, if the family and edit have it.

    What is drawn depends on the seed, the family, the edit and the split alone: whoever names the family, or the edit,
    of an item gets the same again. Another edit, then another turn, is tried where there is no scene of the split.

    Raises:
        ValueError: unknown family, edit or split, negative seed, or a size that is not a positive multiple of 16.
            Also where there is no scene of a split, as of an edit of which nothing is held out, and where a scene made
            its prompt without `language.say`.
    """
    _check(seed, size, family, edit, split)
    rng, asked = np.random.default_rng((seed, 20_251_004)), _Asked(seed, size, family, edit, split)
    for wanted, edits in asked.chosen():
        weights = np.array([MIX.get(name, 1.0) for name in edits])
        for name in rng.choice(list(edits), len(edits), replace=False, p=weights / weights.sum()) if edits else ():
            for each in _generator(seed, name).permutation(edits[name]):
                item = _of_split(asked, str(name), str(each), wanted)
                if item is not None:
                    return item
    raise ValueError(
        f"seed {seed}: there is no {edit or family or 'scene'} of the split {split or BY_TURNS!r}; choose another "
        "split or edit"
    )


def _check(seed: int, size: int, family: str | None, edit: str | None, split: str | None) -> None:
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; use 0 or more")
    if size <= 0 or size % 16:
        raise ValueError(f"size {size} is not a positive multiple of 16; use 128 or 256")
    if family is not None and family not in SCENES:
        raise ValueError(f"unknown family {family!r}; choose one of {', '.join(SCENES)}")
    if edit is not None and family is not None and edit not in SCENES[family].edits:
        choices = ", ".join(SCENES[family].edits)
        raise ValueError(f"family {family!r} has no edit {edit!r}; choose one of {choices}")
    if edit is not None and all(edit not in scene.edits for scene in SCENES.values()):
        raise ValueError(f"no family has an edit {edit!r}; name a family to see those that it has")
    if split is not None and split not in (*SPLITS, BY_TURNS):
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join((*SPLITS, BY_TURNS))}")


@dataclass(frozen=True)
class _Asked:
    """What is asked for."""

    seed: int
    size: int
    family: str | None
    edit: str | None
    split: str | None

    def edits(self, split: str) -> dict[str, tuple[str, ...]]:
        """By family, the edits that were asked for and have scenes of a split."""
        families = MIX if self.family is None and self.edit is None else SCENES
        found = {
            family: tuple(e for e in SCENES[family].edits if self.edit in (None, e) and can_have(e, split))
            for family in families
            if self.family in (None, family)
        }
        return {family: edits for family, edits in found.items() if edits}

    def chosen(self) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
        """The split, and its edits by family: where none was asked for the seed's turn, then what else they have."""
        if self.split not in (None, BY_TURNS):
            return [(self.split, self.edits(self.split))]
        turns = dict.fromkeys((split_of_seed(self.seed, FIRST_EVALUATION_SEED), IN_DISTRIBUTION, HARD))
        return [(split, edits) for split in turns if (edits := self.edits(split))]


def _of_split(asked: _Asked, family: str, edit: str, split: str) -> Item | None:
    templates = phrasings(edit, held_out=split == PHRASING)
    rng, spoken = _generator(asked.seed, f"{family} {edit}"), _generator(asked.seed, f"{family} {edit} in words")
    for _ in range(MAX_DRAWS):
        scene = SCENES[family].sample(rng, edit)
        if scene is not None:
            words = speak(spoken, _said(scene), scene.state(0.0), templates)
            item = Item(asked.seed, asked.size, scene, words)
            if split_of(item) == split:
                return item
    return None


def _said(scene: Scene) -> Said:
    if not isinstance(scene.prompt, Said):
        raise ValueError(f"the prompt of a {scene.family} scene is a plain string; make it with `language.say`")
    return scene.prompt


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng((seed, 20_251_128, *name.encode()))
