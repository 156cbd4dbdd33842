"""Whether the words that a model put to a pair can be trusted: their form, the pixels, and what came before."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from chronoedit.vlm.checks import LATIN_SHARE, QUOTED
from chronoedit.vlm.labels import MAX_CHANGES, MAX_INSTRUCTION_WORDS, NO_CHANGE

COMPARE_SIDE_PX = 128
SEEN_LEVELS = 20
"""Of 255: a smaller difference of a pixel may come from compression."""
UNCHANGED_SHARE = 0.0005
CHANGED_SHARE = 0.02
"""Of the pixels: below the one nothing visible changed, above the other something did; between them both may be."""
PROSE_WORDS = 8
"""An instruction of so many words has a small one of English among them; a terse "remove hat" need not."""
PRAISE = frozenset({
    "amazing", "beautiful", "beautifully", "breathtaking", "captivating", "charming", "elegant", "exquisite",
    "fantastic", "gorgeous", "impressive", "magnificent", "mesmerizing", "perfect", "stunning", "wonderful",
})  # fmt: skip
REFUSAL = re.compile(
    r"^\W*(i'?m sorry|i am sorry|sorry,|i can(?:no|')t|i am unable|i'm unable|i won't|as an ai)", re.IGNORECASE
)
FOREIGN = frozenset({
    "el", "la", "los", "las", "una", "con", "del", "le", "les", "des", "une", "du", "avec", "et", "der", "das", "und",
    "dem", "ein", "eine", "mit", "il", "lo", "gli", "di", "um", "uma", "na", "het", "een",
})  # fmt: skip
FUNCTION_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "by", "from", "has", "have", "her", "his", "in", "into", "is", "it", "its",
    "of", "on", "onto", "so", "that", "the", "their", "then", "to", "with",
})  # fmt: skip
SMALL_WORDS = frozenset({
    "a", "an", "and", "are", "be", "has", "have", "her", "his", "is", "it", "its", "now", "so", "that", "the", "their",
    "then",
})  # fmt: skip


def is_no_change(instruction: str) -> bool:
    """Whether an instruction says that nothing changed."""
    return instruction.strip().strip("\"'.“”").lower() in (NO_CHANGE, "no changes", "nothing changed")


def instruction_problem(answer: str) -> str | None:
    """What is wrong with the form of an instruction, in a sentence; None when nothing is."""
    text = answer.strip()
    if not text:
        return "It must not be empty."
    if is_no_change(text):
        return None
    if is_refusal(text):
        return "It must be an instruction; describe only what can be seen."
    words = text.split()
    if len(words) > MAX_INSTRUCTION_WORDS:
        return f"It has {len(words)} words, and must have at most {MAX_INSTRUCTION_WORDS}."
    if "\n" in text:
        return "It must be one line."
    changes = len([part for part in text.split(";") if part.strip()])
    if changes > MAX_CHANGES:
        return f"It lists {changes} changes; keep the {MAX_CHANGES} main ones."
    if not reads_as_english(text):
        return "It must be in English, but for quoted text."
    praise = sorted(PRAISE & {word.strip(".,;:!\"'").lower() for word in words})
    if praise:
        return f"It must not praise: leave out {', '.join(praise)}."
    return None


def is_refusal(answer: str) -> bool:
    """Whether an answer opens as those do by which a model declines."""
    return REFUSAL.match(answer) is not None


def reads_as_english(instruction: str) -> bool:
    """Whether an instruction is in English, as far as its words tell; quoted text may be in any language."""
    prose = QUOTED.sub(" ", instruction)
    words = re.findall(r"[^\W\d_]+", prose.lower())
    letters = "".join(words)
    if not letters or sum(letter.isascii() for letter in letters) / len(letters) < LATIN_SHARE:
        return False
    foreign, own = (sum(word in some for word in words) for some in (FOREIGN, FUNCTION_WORDS))
    return foreign <= own and (own > 0 or len(words) < PROSE_WORDS)


def changed_shares(before: Image.Image, after: Image.Image) -> tuple[float, float]:
    """The share of pixels that differ visibly, in [0, 1], of both pictures made small; and that with light aside.

    For the second, `after` is given the mean and contrast of `before` in each colour, so that an edit of nothing but
    the light is hardly any.
    """
    size = (min(before.width, COMPARE_SIDE_PX), min(before.height, COMPARE_SIDE_PX))
    a, b = (_small(picture, size) for picture in (before, after))
    contrast = a.std((0, 1)) / np.maximum(b.std((0, 1)), 1.0)
    relit = (b - b.mean((0, 1))) * contrast + a.mean((0, 1))
    changed, but_light = (float((np.abs(a - other).max(2) > SEEN_LEVELS).mean()) for other in (b, relit))
    return changed, but_light


def _small(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """float32 H W 3 in [0, 255]."""
    return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX), dtype=np.float32)


def pixel_problem(instruction: str, changed: float, changed_but_light: float) -> str | None:
    """What the pictures hold against an instruction that says, or does not say, that nothing changed."""
    if is_no_change(instruction) and changed_but_light > CHANGED_SHARE:
        return f'it says "{NO_CHANGE}", but {changed_but_light:.1%} of the pixels differ, light aside'
    if not is_no_change(instruction) and changed < UNCHANGED_SHARE:
        return "it names a change, but the pictures are the same"
    return None


def essence(instruction: str) -> str:
    """An instruction without what two of the same meaning differ in: case, punctuation, articles, order of its changes.

    One content word more or less is another edit ("turn the ball red", "turn the ball blue"), and so is another order
    of words ("from left to right"), so both count.
    """
    changes = (re.findall(r"[^\W_]+", change) for change in instruction.lower().split(";"))
    return "; ".join(sorted(" ".join(word for word in words if word not in SMALL_WORDS) for words in changes))
