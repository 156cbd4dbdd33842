"""Asking a vision-language model: the question, the checked answer, and what every kind of model has in common."""

from __future__ import annotations

import json
import math
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from chronoedit.cache import content_key
from chronoedit.errors import MissingExtraError, VlmCutOff, VlmError
from chronoedit.media import image_sha256
from chronoedit.vlm.answers import Answers

SHORTEST_SIDE_PX = 1080
IMAGE_PATCH_PX = 32
"""A side of what becomes one token: Qwen3-VL merges 2 x 2 patches of 16 px (Qwen2.5-VL: of 14 px)."""
CHARACTERS_PER_TOKEN = 4
THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
FENCE = re.compile(r"^```(?:json)?\s*\n(.*)\n```$", re.DOTALL)

ProblemOf = Callable[[str], str | None]
OnText = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: instructions, the user's words, and pictures that go before them.

    With a `schema` (JSON Schema) the answer is JSON of it. Pictures are sent with a shortest side of at most
    `shortest_side_px`.
    """

    instructions: str
    text: str
    images: tuple[Image.Image, ...] = ()
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int = 0
    shortest_side_px: int = SHORTEST_SIDE_PX


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back; `problem` is what is still wrong with it, `cached` whether it was known already."""

    text: str
    problem: str | None = None
    cached: bool = False

    @property
    def value(self) -> Any:
        """The answer to a question with a schema, parsed. Raises ValueError when it is no JSON."""
        return parse_json(self.text)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[Image.Image, ...] = ()


def nothing_wrong(text: str) -> str | None:
    """The check of a question to which any answer will do."""
    return None


@dataclass(kw_only=True)
class VisionModel(ABC):
    """A model that sees pictures and answers; `name` and `revision` identify it.

    Several threads may ask at once. `sent` counts the requests, never more than `max_requests`. Answers without a
    problem are kept in the file `answers`, by all that they depend on, and found there the next time.
    """

    name: str
    revision: str | None = None
    max_requests: int | None = None
    answers: Path | None = None
    sent: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.max_requests is not None and self.max_requests < 1:
            raise ValueError(f"a budget of {self.max_requests} requests; give 1 or more")
        self._known = None if self.answers is None else Answers(self.answers)
        self._lock = threading.Lock()

    def ask(
        self,
        question: Question,
        problem_of: ProblemOf = nothing_wrong,
        repairs: int = 2,
        on_text: OnText | None = None,
    ) -> Answer:
        """The answer to a question; one with a problem is sent back with it, up to `repairs` times.

        `problem_of(text)` says in a sentence what is wrong with an answer, or None. `on_text` gets the words as they
        come, those of answers that are then repaired too.
        Raises VlmError when the model cannot be used or the budget is spent, its subclass VlmRefusal when it refuses.
        """
        check = _with_schema(question.schema, problem_of)
        key = "" if self._known is None else self._key(question)
        known = None if self._known is None else self._known.get(key)
        if known is not None and check(known) is None:
            return Answer(text=known, cached=True)
        turns = [
            Turn(role="system", text=question.instructions),
            Turn(role="user", text=question.text, images=tuple(_sendable(question))),
        ]
        text, problem = self._try(turns, question, check, on_text)
        for _ in range(repairs):
            if problem is None:
                break
            again = f"{problem} Answer again, with nothing but the corrected answer."
            turns += [Turn(role="assistant", text=text), Turn(role="user", text=again)]
            text, problem = self._try(turns, question, check, on_text)
        if problem is None and self._known is not None:
            self._known.put(key, self.name, text)
        return Answer(text=text, problem=problem)

    def close(self) -> None:
        """Free what the model holds; it may be asked again afterwards, and is then loaded anew."""
        if self._known is not None:
            self._known.close()

    @abstractmethod
    def _reply(self, turns: list[Turn], question: Question, on_text: OnText | None) -> str:
        """The model's next words. Raises VlmCutOff when they reach `question.max_tokens`."""

    def _try(
        self, turns: list[Turn], question: Question, check: ProblemOf, on_text: OnText | None
    ) -> tuple[str, str | None]:
        """The next answer, and what is wrong with it."""
        try:
            text = self._send(turns, question, on_text)
        except VlmCutOff as error:
            return error.text, str(error)
        return text, check(text)

    def _send(self, turns: list[Turn], question: Question, on_text: OnText | None) -> str:
        with self._lock:
            if self.max_requests is not None and self.sent >= self.max_requests:
                raise VlmError(f"the budget of {self.max_requests} requests is spent; raise it, or ask for less")
            self.sent += 1
        return THOUGHTS.sub("", self._reply(turns, question, on_text)).strip()

    def _key(self, question: Question) -> str:
        """What an answer was the answer to: words, pictures, model and parameters."""
        schema = None if question.schema is None else json.dumps(question.schema, sort_keys=True)
        pictures = [image_sha256(image) for image in question.images]
        settings = (question.max_tokens, question.temperature, question.seed, question.shortest_side_px)
        asked = (question.instructions, question.text, schema)
        return content_key("vlm", self.name, self.revision, *asked, *settings, *pictures)


def with_schema_in_words(turns: list[Turn], question: Question) -> list[Turn]:
    """The same conversation for a model that knows no schemas: its instructions ask for the one there is."""
    if question.schema is None:
        return turns
    asked = f"{turns[0].text}\n\nAnswer with nothing but JSON of this schema: {json.dumps(question.schema)}"
    return [Turn(role="system", text=asked), *turns[1:]]


def _with_schema(schema: Mapping[str, Any] | None, problem_of: ProblemOf) -> ProblemOf:
    """The check of an answer, which must be of the schema first. Raises MissingExtraError."""
    if schema is None:
        return problem_of
    try:
        from jsonschema import Draft202012Validator
    except ImportError as error:
        raise MissingExtraError('answers of a schema need jsonschema: pip install "chronoedit[vlm]"') from error
    validator = Draft202012Validator(schema)

    def check(text: str) -> str | None:
        try:
            value = parse_json(text)
        except ValueError as error:
            return f"It must be JSON, and is not ({error})."
        wrong = next(iter(validator.iter_errors(value)), None)
        if wrong is not None:
            return f"It is not as asked at {wrong.json_path}: {wrong.message}."
        return problem_of(text)

    return check


def parse_json(text: str) -> Any:
    """The JSON in an answer, with or without a fence around it. Raises ValueError when it is none."""
    fenced = FENCE.match(text.strip())
    return json.loads(fenced[1] if fenced else text)


def _sendable(question: Question) -> list[Image.Image]:
    return [shrunk(image, question.shortest_side_px) for image in question.images]


def shrunk(image: Image.Image, shortest_side_px: int) -> Image.Image:
    """RGB, with a shortest side of at most so many px."""
    image = image.convert("RGB")
    shortest = min(image.size)
    if shortest <= shortest_side_px:
        return image
    scale = shortest_side_px / shortest
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def estimate_tokens(question: Question) -> int:
    """About how many tokens are sent: a quarter of the characters, and one for 32 x 32 px as Qwen3-VL has it."""
    sizes = [shrunk(image, question.shortest_side_px).size for image in question.images]
    pictures = sum(math.ceil(w / IMAGE_PATCH_PX) * math.ceil(h / IMAGE_PATCH_PX) for w, h in sizes)
    return math.ceil(len(question.instructions + question.text) / CHARACTERS_PER_TOKEN) + pictures


def shown(question: Question) -> str:
    """What would be sent, for a dry run."""
    sizes = [shrunk(image, question.shortest_side_px).size for image in question.images]
    pictures = "".join(f"[picture, {width}x{height} px]\n" for width, height in sizes)
    schema = "" if question.schema is None else f"\n\nanswer as JSON of {json.dumps(question.schema)}"
    return f"system:\n{question.instructions}\n\nuser:\n{pictures}{question.text}{schema}"
