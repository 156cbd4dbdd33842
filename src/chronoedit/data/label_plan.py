"""What labelling would ask and cost, before anything is asked."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from PIL import Image

from chronoedit.data.label import LabelSettings, first_and_last
from chronoedit.data.label_file import read_labels
from chronoedit.data.label_job import LabelJob, Row
from chronoedit.errors import DataError, OutputError
from chronoedit.vlm.asking import Question, estimate_tokens, shown
from chronoedit.vlm.labels import direction_question, instruction_question, reasoning_question

TRIED = 8
UNKNOWN_INSTRUCTION = "(the instruction that the model will have given)"


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """How many rows there are and have a label already, what is asked about the others, and one as an example.

    `tokens` is what is sent, with pictures, as the first rows make one expect; answers come on top. It is None, and
    `example` empty, when none of the first rows can be read.
    """

    rows: int
    done: int
    questions: int
    tokens: int | None
    example: str


def plan_labels(job: LabelJob, settings: LabelSettings) -> LabelPlan:
    """Count a job's rows and estimate what would be sent; nothing is, and nothing is written.

    Raises DataError for a set that cannot be read, OutputError for labels of another set.
    """
    done = sum(1 for _ in read_labels(job.labels)) if job.labels.exists() else 0
    rows = sum(1 for _ in job.rows())
    if done > rows:
        raise OutputError(f"{job.labels} has {done} lines, and the set {rows} rows; choose another output")
    tried = [asked for row in islice(job.rows(), done, done + TRIED) if (asked := _asked(row, settings))]
    left = rows - done
    tokens = [sum(map(estimate_tokens, questions)) for questions in tried]
    return LabelPlan(
        rows=rows,
        done=done,
        questions=left * questions_a_row(settings),
        tokens=round(left * sum(tokens) / len(tokens)) if tokens else 0 if left == 0 else None,
        example="\n\n".join(map(shown, tried[0])) if tried else "",
    )


def questions_a_row(settings: LabelSettings) -> int:
    """How many questions a pair takes when each is answered well at once."""
    return (not settings.upgrade) + settings.verify_direction + settings.reasoning


def questions_about(
    before: Image.Image, after: Image.Image, settings: LabelSettings, caption: str = UNKNOWN_INSTRUCTION
) -> list[Question]:
    """The questions about a pair, in their order, when each is answered well at once."""
    side_and_seed = settings.shortest_side_px, settings.seed
    questions = []
    if not settings.upgrade:
        questions.append(instruction_question(before, after, *side_and_seed))
    if settings.verify_direction:
        questions.append(direction_question(after, before, caption, *side_and_seed))
    if settings.reasoning:
        questions.append(reasoning_question(before, after, caption, *side_and_seed))
    return questions


def _asked(row: Row, settings: LabelSettings) -> list[Question]:
    """The questions about a row; none when it cannot be read."""
    try:
        before, after = first_and_last(row.record)
    except DataError:
        return []
    caption = row.record.prompt if settings.upgrade else UNKNOWN_INSTRUCTION
    return questions_about(before, after, settings, caption)
