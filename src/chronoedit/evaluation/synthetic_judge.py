"""A judge whose accuracy and bias are known, because it is told the truth and errs as often as it is asked to."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields

import numpy as np
from PIL import Image

from chronoedit.media import load_image
from chronoedit.world import sample_item

from .cases import Case, Verdict
from .physics import score

PREFIX = "synthetic"
CRITERION = "overall"


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How the judge errs.

    A true edit passes with the chance accuracy + bias, and a bad one does not with the chance accuracy − bias: so
    `accuracy` is what the check calls so, and `bias` what it calls `leans_to_passing`. A copy passes `copies` more
    often than other bad edits. `refused` and `unreadable` are the shares of pictures without an answer. Raises
    ValueError for chances outside [0, 1].
    """

    accuracy: float = 1.0
    bias: float = 0.0
    copies: float = 0.0
    refused: float = 0.0
    unreadable: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        chances = {
            "accuracy + bias": self.accuracy + self.bias,
            "accuracy - bias": self.accuracy - self.bias,
            "1 - accuracy + bias + copies": 1 - self.accuracy + self.bias + self.copies,
            "refused": self.refused,
            "unreadable": self.unreadable,
            "refused + unreadable": self.refused + self.unreadable,
        }
        for name, chance in chances.items():
            if not -1e-9 <= chance <= 1 + 1e-9:
                raise ValueError(f"{name} is {chance:g}, which is no chance; keep it from 0 to 1")

    def passes(self, *, true: bool, copied: bool) -> float:
        """The chance that an edit passes."""
        if true:
            return self.accuracy + self.bias
        return 1 - self.accuracy + self.bias + self.copies * copied


class SyntheticJudge:
    """Sees by the exact score whether an edit of the world is true, then errs as `errors` says.

    The same picture has the same verdict. Scores are spread evenly over the part of `scale` from `threshold` up, or
    below it.
    """

    def __init__(self, errors: Errors, *, scale: tuple[float, float], threshold: float) -> None:
        given = ",".join(f"{name}={value:g}" for name, value in asdict(errors).items())
        self.name = f"{PREFIX}:{given} from {threshold:g}"
        self._errors, self._scale, self._threshold = errors, scale, threshold

    def score(self, case: Case, edited: Image.Image) -> Verdict:
        """The verdict on an edit of a case of `judge_check.world_case`. Raises ValueError for another case."""
        known = ("seed", "family", "size_px")
        if not all(name in case.details for name in known):
            raise ValueError(f"case {case.key!r} is none of the world, and its truth unknown; use another judge")
        item = sample_item(case.details["seed"], family=case.details["family"], size=case.details["size_px"])
        pixels = np.asarray(edited.convert("RGB"))
        copied = np.array_equal(pixels, np.asarray(load_image(case.image.read())))
        digest = hashlib.sha256(f"{self._errors.seed} {case.key} ".encode() + pixels.tobytes()).digest()
        return self.say(np.random.default_rng(list(digest)), true=score(item, pixels).success, copied=copied)

    def say(self, rng: np.random.Generator, *, true: bool, copied: bool) -> Verdict:
        """A verdict on an edit that is known to be true or not."""
        silent, passing, height = (float(u) for u in rng.uniform(size=3))
        if silent < self._errors.refused:
            return Verdict(scores={}, problem="it refused, as it was asked to", refused=True)
        if silent < self._errors.refused + self._errors.unreadable:
            return Verdict(scores={}, problem="its answer cannot be read, as it was asked to")
        low, high = self._scale
        if passing < self._errors.passes(true=true, copied=copied):
            return Verdict(scores={CRITERION: self._threshold + height * (high - self._threshold)}, reason="passed")
        return Verdict(scores={CRITERION: low + height * (self._threshold - low) * (1 - 1e-9)}, reason="did not pass")


def parse_errors(text: str) -> Errors:
    """The errors that "synthetic:accuracy=0.8,bias=0.1" asks for. Raises ValueError for an unknown or bad entry."""
    names = {field.name: field for field in fields(Errors)}
    values: dict[str, float] = {}
    for entry in filter(None, text.removeprefix(PREFIX).removeprefix(":").split(",")):
        name, _, value = (part.strip() for part in entry.partition("="))
        if name not in names or name in values:
            raise ValueError(
                f"{entry!r} is unknown or given twice; choose from {', '.join(names)}, each as NAME=NUMBER"
            )
        try:
            values[name] = int(value) if name == "seed" else float(value)
        except ValueError as error:
            raise ValueError(f"{name} is {value!r}, not a number; write {name}=0.1") from error
    return Errors(**values)  # type: ignore[arg-type]  # the seed alone is whole, and was read so
