"""The client against a real server, llama.cpp with SmolLM2-135M: the wire, streaming, schemas and pictures.

The model is small and its eye is of random weights, so nothing is asked of what it says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from PIL import Image

from chronoedit.errors import VlmError
from chronoedit.vlm.asking import Question
from chronoedit.vlm.client import Server
from chronoedit.vlm.concurrency import in_parallel

from .llama_cpp import missing, served, write_eye

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"needs the package {missing()} (tests/packages.txt)")

PICTURE = Image.new("RGB", (64, 64), "red")
SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}, "why": {"enum": ["warm", "cold"]}},
    "required": ["score", "why"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(write_eye(tmp_path_factory.mktemp("eye") / "eye.gguf")) as url:
        yield url


def server(url: str) -> Server:
    return Server(url=url, name="smollm2", timeout_s=120.0, max_retries=0)


def question(text: str, **changes: object) -> Question:
    return Question(**{"instructions": "Answer in one short sentence.", "text": text, "max_tokens": 64, **changes})


def test_words_and_the_same_words_streamed(url: str) -> None:
    capital = question("What is the capital of France?")
    heard: list[str] = []
    whole = server(url).ask(capital)
    streamed = server(url).ask(capital, on_text=heard.append)
    assert "Paris" in whole.text and whole.text == streamed.text
    assert len(heard) > 1 and "".join(heard).strip() == whole.text


def test_an_answer_of_a_schema_with_pictures(url: str) -> None:
    asked = server(url)
    answer = asked.ask(question("How warm is it?", images=(PICTURE, PICTURE), schema=SCHEMA), repairs=0)
    assert answer.problem is None and answer.value["why"] in ("warm", "cold") and 1 <= answer.value["score"] <= 5
    assert asked.sent == 1  # the server itself kept to the schema: nothing was put in words or repaired


def test_an_answer_that_is_too_long_is_a_problem(url: str) -> None:
    answer = server(url).ask(question("Count to a hundred.", max_tokens=4), repairs=0)
    assert answer.problem is not None and "cut off after 4 tokens" in answer.problem


def test_two_at_once(url: str) -> None:
    asked = server(url)
    names = set()

    def work(text: str) -> str:
        names.add(threading.current_thread().name)
        return asked.ask(question(text, schema=SCHEMA)).text

    assert len(list(in_parallel(work, ["Is ice warm?", "Is fire warm?", "Is tea warm?"], workers=2))) == 3
    assert len(names) == 2


def test_a_model_without_eyes_says_so() -> None:
    with served(None) as url, pytest.raises(VlmError, match="answered [45]00"):
        server(url).ask(question("What do you see?", images=(PICTURE,)))
