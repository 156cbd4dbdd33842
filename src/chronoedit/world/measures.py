"""What a scene says must be conserved in the edited picture; the scorer counts the pixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AreaMeasure:
    """The seen area of the bodies `ids` together: that of the true picture, or that of the bodies `versus` as seen.

    `tolerance` is the largest difference that passes, as a share of the expected area.
    """

    name: str
    ids: tuple[int, ...]
    versus: tuple[int, ...] = ()
    tolerance: float = 0.2

    def __post_init__(self) -> None:
        if not self.ids or not 0 < self.tolerance < 1:
            raise ValueError(f"measure {self.name!r}: give ids, and a tolerance between 0 and 1, not {self.tolerance}")
