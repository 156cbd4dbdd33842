"""Small operations on bool masks `H W`: dilate, erode, open, connected components, overlap."""

from __future__ import annotations

import numpy as np


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """The mask grown by a square of half width `radius` px."""
    grown = mask.copy()
    for _ in range(radius):
        wide = grown.copy()
        wide[:, 1:] |= grown[:, :-1]
        wide[:, :-1] |= grown[:, 1:]
        grown = wide.copy()
        grown[1:] |= wide[:-1]
        grown[:-1] |= wide[1:]
    return grown


def erode(mask: np.ndarray, radius: int) -> np.ndarray:
    """The mask shrunk by a square of half width `radius` px; beyond the border counts as inside."""
    return ~dilate(~mask, radius)


def opened(mask: np.ndarray, radius: int) -> np.ndarray:
    """The mask without what is thinner than 2 · radius + 1 px."""
    return dilate(erode(mask, radius), radius)


def components(mask: np.ndarray) -> list[np.ndarray]:
    """The 8-connected pieces of a mask, each a bool mask `H W`, the largest first."""
    labels = _labels(mask)
    sizes = np.bincount(labels.ravel())
    order = sorted((label for label in range(1, len(sizes)) if sizes[label]), key=lambda label: int(-sizes[label]))
    return [labels == label for label in order]


def _labels(mask: np.ndarray) -> np.ndarray:
    """Runs of each row, joined to the runs of the row above that they touch (union-find)."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    stops = np.nonzero(edges == -1)[1]
    parent = list(range(len(rows) + 1))

    def root(label: int) -> int:
        while parent[label] != label:
            parent[label] = label = parent[parent[label]]
        return label

    first_of_row = np.searchsorted(rows, np.arange(mask.shape[0] + 1))
    for run in range(len(rows)):
        row = rows[run]
        for other in range(first_of_row[row - 1], first_of_row[row]) if row else ():
            if starts[other] <= stops[run] and starts[run] <= stops[other]:
                parent[root(run + 1)] = root(other + 1)
    labels = np.zeros(mask.shape, dtype=np.int32)
    for run, (row, start, stop) in enumerate(zip(rows, starts, stops, strict=True)):
        labels[row, start:stop] = root(run + 1)
    return labels


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    union = int(np.count_nonzero(a | b))
    return 1.0 if union == 0 else int(np.count_nonzero(a & b)) / union
