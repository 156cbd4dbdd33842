"""Scores as a judge gives them: a question with a schema, and scores read from JSON or plain words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import PIL.Image

from chronoedit.evaluation.cases import JudgeQuestion
from chronoedit.vlm.asking import Question

Criteria = Mapping[str, str]
"""Names of criteria, and what each asks."""
Scale = tuple[float, float]

NUMBER = r"(-?\d+(?:\.\d+)?)"
OUT_OF = rf"{NUMBER}(?:\s*(?:/|out\s+of)\s*(\d+))?(?!\.?\d)"


def judge_question(
    instructions: str, text: str, images: Sequence[PIL.Image.Image], criteria: Criteria, scale: Scale
) -> JudgeQuestion:
    """The question for scores of `criteria` on `scale`, answered as JSON: a reason first, then whole numbers."""
    listed = "\n".join(f"- {name}: {what}" for name, what in criteria.items())
    low, high = (round(end) for end in scale)
    wanted = f"Give a whole number from {low} to {high} for each of:\n{listed}"
    question = Question(
        instructions=instructions,
        text=f"{text}\n\n{wanted}\nSay first in one or two sentences why.",
        images=tuple(images),
        schema=score_schema(tuple(criteria), scale),
    )
    return JudgeQuestion(question=question, parse=partial(scores_from, criteria=tuple(criteria), scale=scale))


def score_schema(criteria: Sequence[str], scale: Scale) -> dict[str, Any]:
    """JSON Schema of an answer: `reason`, then each criterion."""
    low, high = (round(end) for end in scale)
    scores = {name: {"type": "integer", "minimum": low, "maximum": high} for name in criteria}
    return {
        "type": "object",
        "properties": {"reason": {"type": "string"}, **scores},
        "required": ["reason", *criteria],
        "additionalProperties": False,
    }


def scores_from(text: str, criteria: Sequence[str], scale: Scale) -> dict[str, float]:
    """The score of each criterion, from JSON or from lines such as "Naturalness: 7/10"; "4/5" will do for one.

    A number without a name is never taken for one of several scores, and none is clamped.
    Raises ValueError when a score is missing, ambiguous or off the scale.
    """
    in_json = [found for found in (_from_json(value, criteria) for value in _json_values(text)) if found]
    if any(found != in_json[0] for found in in_json):
        raise ValueError("several answers that differ")
    return _checked(in_json[0] if in_json else _from_words(text, criteria), criteria, scale)


def reason_from(text: str) -> str:
    """Why a judge says so: the `reason` of a JSON answer, else the whole of it."""
    for value in _json_values(text):
        if isinstance(value, dict) and isinstance(value.get("reason"), str):
            return str(value["reason"]).strip()
    return text.strip()


def _json_values(text: str) -> Iterator[Any]:
    """Every JSON object or list that stands in a text, the outermost of each place."""
    decoder, position = json.JSONDecoder(), 0
    while (match := re.compile(r"[{\[]").search(text, position)) is not None:
        try:
            value, position = decoder.raw_decode(text, match.start())
        except ValueError:
            position = match.start() + 1
            continue
        yield value


def _from_json(value: Any, criteria: Sequence[str]) -> dict[str, str]:
    if isinstance(value, list):
        numbers = [item for item in value if isinstance(item, (int, float)) and not isinstance(item, bool)]
        whole = len(numbers) == len(value) == len(criteria)
        return {name: str(number) for name, number in zip(criteria, numbers, strict=True)} if whole else {}
    if not isinstance(value, dict):
        return {}
    named = {_plain(key): item for key, item in value.items()}
    found = {name: str(named[_plain(name)]) for name in criteria if _plain(name) in named}
    if found:
        return found
    score = named.get("score", named.get("scores", named.get("rating")))
    if isinstance(score, (list, dict)):
        return _from_json(score, criteria)
    return {criteria[0]: str(score)} if score is not None and len(criteria) == 1 else {}


def _from_words(text: str, criteria: Sequence[str]) -> dict[str, str]:
    bare = re.sub(r"[*`#]", "", text)
    found = {}
    for name in criteria:
        words = r"[\s_&-]+".join(re.escape(word) for word in name.split("_"))
        match = _only(rf"\b{words}(?:\s+(?:score|rating))?\s*(?:[:=]|\bis\b)\s*{OUT_OF}", bare)
        if match is not None:
            found[name] = match
    if not found and len(criteria) == 1:
        patterns = (
            rf"\b(?:score|rating)s?\s*(?:[:=]|\bis\b)\s*{OUT_OF}",
            rf"(?<![\d.]){NUMBER}\s*(?:/|out\s+of)\s*(\d+)",
        )
        alone = re.fullmatch(rf"\s*{OUT_OF}\s*\.?\s*", bare)
        match = _joined(alone) if alone else next(filter(None, (_only(pattern, bare) for pattern in patterns)), None)
        found = {criteria[0]: match} if match else {}
    return found


def _only(pattern: str, text: str) -> str | None:
    """What a pattern finds, when it finds one number only. Raises ValueError when it finds different ones."""
    found = list(dict.fromkeys(_joined(match) for match in re.finditer(pattern, text, re.IGNORECASE)))
    if len({value.partition("/")[0] for value in found}) > 1:
        raise ValueError(f"several scores for one criterion: {', '.join(found)}")
    return found[0] if found else None


def _joined(match: re.Match[str]) -> str:
    return match[1] + (f"/{match[2]}" if match[2] else "")


def _checked(found: Mapping[str, str], criteria: Sequence[str], scale: Scale) -> dict[str, float]:
    missing = [name for name in criteria if name not in found]
    if missing:
        raise ValueError(f"no score for {', '.join(missing)}")
    return {name: _on_scale(name, found[name], scale) for name in criteria}


def _on_scale(name: str, given: str, scale: Scale) -> float:
    match = re.fullmatch(rf"\s*{OUT_OF}\s*", given)
    score = float(match[1]) if match else math.nan
    other = match is not None and match[2] is not None and float(match[2]) != scale[1]
    if not scale[0] <= score <= scale[1] or other:
        raise ValueError(f"{name} is {given!r}, which is no score from {scale[0]:g} to {scale[1]:g}")
    return score


def _plain(name: object) -> str:
    return re.sub(r"[^a-z0-9]+", "", str(name).lower())
