"""The small world: drawn scenes, simulated edits, instructions in words, and the truth about each."""

from __future__ import annotations

from .item import FIRST_EVALUATION_SEED, Item, sample_item
from .scenes import FRAMES, SCENES
from .state import WORLD_SIZE

__all__ = ["FIRST_EVALUATION_SEED", "FRAMES", "SCENES", "WORLD_SIZE", "Item", "sample_item"]
