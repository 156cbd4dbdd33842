"""Which spans of a video make a clip: 29 frames in one shot, from a camera that rests, that end in a visible change."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from chronoedit.data import motion
from chronoedit.data.footage import Sample

CLIP_LENGTH = 29
HOP = 7  # samples by which a span that is rejected moves on
REASONS = {
    "short": "the shot ends before the clip is full",
    "gap": "frames are missing or damaged",
    "fade": "a frame is blank, or the picture fades",
    "alike": "too little differs between first and last frame",
    "plain": "too little detail to tell whether the camera rests",
    "camera": "the camera moves, or nearly everything does",
    "light": "the light changes over the whole picture",
    "busy": "too much differs from the first frame",
    "blurred": "the first or last frame is blurred",
    "duplicate": "much the same as a clip that is kept",
    "enough": "the shot has given as many clips as it may",
}
"""Why a span is rejected, in the order in which they are looked for."""

CUT_DIFFERENCE = 8.0  # of 255: less than that between two frames is no cut
CUT_JUMP = 3.0  # a cut differs so many times more than the frames before it did
CUT_ALONE = 20.0  # and by so much where there are too few of those
CUT_LOST = 0.6  # share of blocks that a cut leaves nowhere to be found
MIN_HISTORY = 2
BLANK = 8.0  # contrast below which a frame is blank
FADED = 0.6  # of the first frame's contrast
LIGHT = 6.0  # greys
MIN_DETAILED = 12  # blocks
MIN_STILL = 0.5  # of the blocks with detail
MAX_MOVED = 0.25  # of them: more is a slow pan or zoom, which leaves half of them where they were for a while


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a clip may be like; shares of the picture, and blur, from 0 to 1. Raises ValueError."""

    min_change: float = 0.01
    max_change: float = 0.5
    max_blur: float = 0.55

    def __post_init__(self) -> None:
        if not 0 <= self.min_change < self.max_change <= 1:
            raise ValueError(
                f"from {self.min_change} to {self.max_change} of the picture may change: give shares from 0 to 1, "
                "min_change below max_change"
            )
        if not 0 < self.max_blur <= 1:
            raise ValueError(f"max_blur {self.max_blur} is not above 0 (sharp) and at most 1 (lets everything through)")


@dataclass(frozen=True)
class Verdict:
    """What a span was found to be: `reason` is None for a clip, else an entry of REASONS."""

    reason: str | None
    measures: dict[str, float]


@dataclass(frozen=True, eq=False)
class Span:
    """Samples that were looked at, what they were found to be, and the index of the sample that is next."""

    samples: tuple[Sample, ...]
    verdict: Verdict
    next_index: int


def spans(samples: Iterable[Sample], judge: Callable[[Sequence[Sample]], Verdict]) -> Iterator[Span]:
    """Every span of `samples` that was looked at, lazily: 29 samples that `judge` sees, or fewer where a shot ends.

    After a clip the next span begins with its last frame; one that is rejected moves on by HOP and takes its other
    frames again. So what comes after `next_index` depends on the samples from there on alone. No more than a span's
    samples are held.
    """
    source, again = iter(samples), deque[Sample]()
    window: list[Sample] = []
    history: list[float] = []
    while (sample := again.popleft() if again else next(source, None)) is not None:
        if window:
            step = motion.difference(window[-1].small, sample.small)
            ended = "gap" if sample.gap else "short" if _is_cut(window[-1], sample, step, history) else None
            history.append(step)
            if ended is not None:
                yield Span(tuple(window), Verdict(ended, {}), sample.index)
                window, history = [], []
        window.append(sample)
        if len(window) == CLIP_LENGTH:
            verdict = judge(window)
            moved = HOP if verdict.reason in REASONS and verdict.reason not in ("duplicate", "enough") else -1
            yield Span(tuple(window), verdict, window[moved].index)
            again.extendleft(reversed(window[moved:]))
            window, history = [], []
    if len(window) > 1:
        yield Span(tuple(window), Verdict("short", {}), window[-1].index + 1)


def _is_cut(before: Sample, after: Sample, step: float, history: Sequence[float]) -> bool:
    """Whether another shot begins: far more changes than just before, and the blocks are found nowhere near."""
    usual = CUT_JUMP * median(history) if len(history) >= MIN_HISTORY else CUT_ALONE
    if step < max(CUT_DIFFERENCE, usual):
        return False
    return motion.match(motion.grey(before.small), motion.grey(after.small)).lost >= CUT_LOST


def judge(window: Sequence[Sample], limits: Limits) -> Verdict:
    """Whether 29 samples make a clip, by their first frame against each quarter and the last; cheap tests first."""
    first, *later = (window[k] for k in (0, *range(HOP, CLIP_LENGTH, HOP)))
    changes = [motion.changed_share(first.small, sample.small) for sample in later]
    measures = {"change": changes[-1], "max_change": max(changes)}
    if _fades(window):
        return _verdict("fade", measures)
    if changes[-1] < limits.min_change:
        return _verdict("alike", measures)
    found = [motion.match(motion.grey(first.small), motion.grey(sample.small)) for sample in later]
    measures |= {"still": min(each.still for each in found), "moved": max(each.moved for each in found)}
    if found[0].detailed < MIN_DETAILED:
        return _verdict("plain", measures)
    if measures["still"] < MIN_STILL or measures["moved"] > MAX_MOVED:
        return _verdict("camera", measures)
    if motion.light_change(first.small, later[-1].small) > LIGHT:
        return _verdict("light", measures)
    if max(changes) > limits.max_change:
        return _verdict("busy", measures)
    measures["blur"] = max(motion.blur(sample.pixels) for sample in (first, later[-1]))
    return _verdict("blurred" if measures["blur"] > limits.max_blur else None, measures)


def _verdict(reason: str | None, measures: dict[str, float]) -> Verdict:
    return Verdict(reason, {name: round(value, 4) for name, value in measures.items()})


def _fades(window: Sequence[Sample]) -> bool:
    """A blank frame, or contrast that has gone or come; what moves changes it less."""
    contrasts = [motion.contrast(window[k].small) for k in range(0, CLIP_LENGTH, HOP)]
    return min(contrasts) < BLANK or min(contrasts[0], contrasts[-1]) < FADED * max(contrasts[0], contrasts[-1])


def signature(window: Sequence[Sample]) -> np.ndarray:
    """Hashes of the first, middle and last frame, and of what the last changes, uint8 4 8."""
    first, middle, last = (motion.grey(window[k].small) for k in (0, CLIP_LENGTH // 2, -1))
    hashes = [motion.perceptual_hash(values) for values in (first, middle, last, last - first)]
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(4, -1)


class Seen:
    """Signatures of the clips that are kept, by key, searched for one that is much the same."""

    FRAME_BITS = 8  # of 64, on the mean of the three frames
    CHANGE_BITS = 16  # of 64
    _BITS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._signatures = np.zeros((64, 4, motion.HASH_SIDE), np.uint8)

    def add(self, key: str, signature: np.ndarray) -> None:
        """Remember a clip."""
        count = len(self._keys)
        if count == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._signatures[count] = signature
        self._keys.append(key)

    def near(self, signature: np.ndarray, but: str) -> str | None:
        """The key of a clip, other than `but`, that looks the same and changes in the same way."""
        bits = self._BITS[self._signatures[: len(self._keys)] ^ signature].sum(2, dtype=np.int32)  # n 4
        alike = (bits[:, :3].sum(1) <= 3 * self.FRAME_BITS) & (bits[:, 3] <= self.CHANGE_BITS)
        return next((self._keys[k] for k in np.flatnonzero(alike) if self._keys[k] != but), None)
