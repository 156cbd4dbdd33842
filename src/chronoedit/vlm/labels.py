"""What is asked about a picture before an edit and one after it, to put the edit into words."""

from __future__ import annotations

from PIL import Image

from chronoedit.vlm.asking import SHORTEST_SIDE_PX, Question
from chronoedit.vlm.prompts import MAX_WORDS, MIN_WORDS, OPENING

NO_CHANGE = "no change"
MAX_INSTRUCTION_WORDS = 200
MAX_CHANGES = 3
FORWARD, BACKWARD, UNCLEAR = "first to second", "second to first", "unclear"
DIRECTIONS = (FORWARD, BACKWARD, UNCLEAR)

INSTRUCTION = f"""You see two pictures. The first was edited, and the second is the result. Write the instruction that
leads from the first to the second, as a user of a picture editor would give it.

- Name what changes: at most {MAX_CHANGES} main changes, each an order of its own ("move ...", "turn ...", "add ..."),
  joined by semicolons. Leave small things out.
- For each say what it is, where it is in the first picture, and how and where it is in the second.
- Of people also say how body, head, arms and hands stand in the end, and where in the picture.
- Leave brightness, shadows and the colour of the light aside, unless nothing else could have been the purpose.
- Do not describe the scene as a whole, and do not judge it: no word of praise, none of mood.
- Only what can be seen counts. Do not guess why.

English, one line, as short as it can be and never over {MAX_INSTRUCTION_WORDS} words. If nothing visible has changed,
answer with the words "{NO_CHANGE}". Answer with the instruction alone."""

REASONING = f"""You see two pictures: the first was edited, and the second is the result. You are also given the edit
as a short instruction. Write what a picture editor needs to know to get from the first to the second, as if a short
film led there.

Write one English paragraph of {MIN_WORDS} to {MAX_WORDS} words that begins with "{OPENING}". Say in it, plainly:
- what changes: which object or person, told apart by its look and place in the first picture;
- the way there: who or what moves, along which path, touching what, so that the second picture comes about;
- the end: where everything that changed is in the second picture, how it looks, and in what pose;
- what stays: who people are (face, hair, clothes), the other objects and their places, the layout, the style, the
  camera.

Both pictures are the truth: where the instruction and they do not agree, follow the pictures. Leave quoted words
exactly as they are, in their own language. Do not speak of "the first picture" or "the second picture": the editor has
only one of them. Do not praise, explain or list. Answer with the paragraph alone."""

DIRECTION = f"""You see two pictures and an instruction for a picture editor. One of the pictures was edited by the
instruction, and the other is the result. They may be shown in either order: look at what the instruction says was
there, and what there should be in the end.

Answer "{FORWARD}" if carrying the instruction out on the first picture gives the second, "{BACKWARD}" if carrying it
out on the second picture gives the first, and "{UNCLEAR}" if it is neither, or cannot be told. Answer with one of these
alone."""


def instruction_question(
    before: Image.Image, after: Image.Image, shortest_side_px: int = SHORTEST_SIDE_PX, seed: int = 0
) -> Question:
    """What leads from one picture to the other, in short."""
    return Question(
        instructions=INSTRUCTION,
        text="What is the instruction?",
        images=(before, after),
        seed=seed,
        shortest_side_px=shortest_side_px,
    )


def reasoning_question(
    before: Image.Image,
    after: Image.Image,
    instruction: str,
    shortest_side_px: int = SHORTEST_SIDE_PX,
    seed: int = 0,
) -> Question:
    """The paragraph that a model of edits is trained on."""
    return Question(
        instructions=REASONING,
        text=f"The instruction: {instruction.strip()}",
        images=(before, after),
        seed=seed,
        shortest_side_px=shortest_side_px,
    )


def direction_question(
    first: Image.Image,
    second: Image.Image,
    instruction: str,
    shortest_side_px: int = SHORTEST_SIDE_PX,
    seed: int = 0,
) -> Question:
    """Which of two pictures an instruction starts from; the answer is one of `DIRECTIONS`."""
    return Question(
        instructions=DIRECTION,
        text=f"The instruction: {instruction.strip()}",
        images=(first, second),
        seed=seed,
        shortest_side_px=shortest_side_px,
    )


def direction_in(answer: str) -> str | None:
    """The direction that an answer names; None when it is none of `DIRECTIONS`."""
    named = answer.strip().strip("\"'.“”").lower()
    return named if named in DIRECTIONS else None


def direction_problem(answer: str) -> str | None:
    """What is wrong with the answer to a `direction_question`."""
    if direction_in(answer) is not None:
        return None
    return f"It must be one of {', '.join(repr(direction) for direction in DIRECTIONS)}."
