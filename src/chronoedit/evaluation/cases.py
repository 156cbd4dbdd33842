"""What a benchmark of edits is made of: its items, the questions that a judge is asked, and what a judge says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import PIL.Image

from chronoedit.data.records import Blob
from chronoedit.vlm.asking import Question


@dataclass(frozen=True, kw_only=True)
class Case:
    """One item: a picture and what is to be done with it.

    `category` is human, robot or driving, or the benchmark's own. `reference` is a picture of the true result, where
    the benchmark has one. `details` is what its questions need beside.
    """

    key: str
    prompt: str
    image: Blob
    category: str = ""
    reference: Blob | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one judge says of one edited picture.

    `scores` are by criterion, on the benchmark's own scale; {} when the judge refused or its answer could not be read,
    which `problem` then says.
    """

    scores: Mapping[str, float]
    reason: str = ""
    problem: str | None = None
    refused: bool = False


class Judge(Protocol):
    """Anything that scores an edited picture; several threads may ask it at once."""

    name: str

    def score(self, case: Case, edited: PIL.Image.Image) -> Verdict:
        """The verdict on `edited`, an answer to `case`."""


@dataclass(frozen=True, kw_only=True)
class JudgeQuestion:
    """A question about an edited picture, and how scores by criterion are read from its answer.

    `parse` raises ValueError for an answer that cannot be read.
    """

    question: Question
    parse: Callable[[str], dict[str, float]]


Judged = Sequence[tuple[Case, Verdict]]
Aggregation = Callable[[Judged], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A benchmark: how its public files are read, what is asked, and how verdicts become figures.

    `source` names the public files. `scale` is the lowest and the highest score. `aggregate` has "official", which does
    what the published script does, and "strict", in which an answer that could not be read has the lowest score.
    """

    name: str
    source: str
    criteria: tuple[str, ...]
    scale: tuple[float, float]
    read: Callable[[Path], Iterator[Case]]
    questions: Callable[[Case, PIL.Image.Image, PIL.Image.Image], Sequence[JudgeQuestion]]
    aggregate: Mapping[str, Aggregation]
