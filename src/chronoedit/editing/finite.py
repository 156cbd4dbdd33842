"""NaN and infinity end an edit where they first appear, with the settings that may have led to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from chronoedit.errors import NotFinite

REMEDY = (
    "the weights or a LoRA are damaged or too strong, or the precision too low: check them with `chronoedit info`, "
    "lower the LoRA scale or the guidance, or use float32"
)


def check_finite(values: Tensor, what: str, where: str) -> None:
    """Raise NotFinite, which names the rows at fault, unless all `values` (a row an edit or variant) are finite."""
    if not torch.isfinite(values).all():
        rows = [row for row, value in enumerate(values) if not torch.isfinite(value).all()]
        raise NotFinite(f"{what} are not finite (NaN or infinite) {where}, rows {rows} of {len(values)}); {REMEDY}")


@contextmanager
def told_with(settings: Callable[[], str]) -> Iterator[None]:
    """Adds the settings to a NotFinite of the block."""
    try:
        yield
    except NotFinite as error:
        raise NotFinite(f"{error}. This edit ran {settings()}") from error
