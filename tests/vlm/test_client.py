"""The client against a scripted server: every way in which an answer can come, or not come."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from chronoedit.errors import VlmError, VlmRefusal
from chronoedit.vlm.asking import Question, estimate_tokens, shown
from chronoedit.vlm.client import Server
from chronoedit.vlm.concurrency import in_parallel

from .conftest import Script, reply

QUESTION = Question(instructions="be brief", text="what is it?", images=(Image.new("RGB", (8, 6), "red"),))


def server(script: Script, **changes: Any) -> Server:
    return Server(**{"url": script.url, "name": "m", "timeout_s": 5.0, "max_retries": 2, **changes})


def fine(text: str) -> str | None:
    return None if text.startswith("ok") else "It must begin with ok."


def test_an_answer(script: Script) -> None:
    script.answers = ["ok, a ball"]
    asked = server(script, key="secret")
    assert asked.ask(QUESTION, fine).text == "ok, a ball" and asked.sent == 1
    (sent,) = script.asked
    assert sent["messages"][0] == {"role": "system", "content": "be brief"}
    picture, words = sent["messages"][1]["content"]
    assert words == {"type": "text", "text": "what is it?"} and sent["model"] == "m" and sent["temperature"] == 0
    data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (8, 6)
    assert script.keys == ["Bearer secret"]


def test_a_wrong_answer_is_sent_back_with_what_is_wrong(script: Script) -> None:
    script.answers = ["no", "still no", "ok now"]
    answer = server(script).ask(QUESTION, fine)
    assert (answer.text, answer.problem) == ("ok now", None)
    last = script.asked[-1]["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "It must begin with ok." in last[-1]["content"]
    script.answers = ["never"]
    answer = server(script).ask(QUESTION, fine)
    assert (answer.text, answer.problem) == ("never", "It must begin with ok.") and len(script.asked) == 6


@pytest.mark.parametrize("trouble", [(429, {"error": {"message": "busy"}}), (503, "down"), "drop"])
def test_a_busy_or_dropping_server_is_asked_again(script: Script, trouble: Any) -> None:
    script.answers = [trouble, trouble, "ok"]
    assert server(script).ask(QUESTION, fine).text == "ok" and len(script.asked) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((429, {"error": {"message": "busy"}}), "answered 429"),
        ((401, {"error": {"message": "who?"}}), "wants another key .*VLM_API_KEY"),
        ((400, {"error": {"message": "no pictures here"}}), "answered 400: .*no pictures here"),
        ("drop", "cannot be reached, asked 3 times"),
        ("hang", "did not answer within 0.2 s"),
        ("garbage", "sent"),
        ({"choices": []}, "sent no answer"),
        (reply(None, refusal="I will not"), "refuses to answer: I will not"),
        (reply(None, finish_reason="content_filter"), "refuses to answer: filtered"),
    ],
)  # fmt: skip
def test_what_cannot_be_mended_is_said(script: Script, answer: Any, message: str) -> None:
    script.answers = [answer]
    with pytest.raises(VlmError, match=message):
        server(script, timeout_s=0.2 if answer == "hang" else 5.0).ask(QUESTION, fine)


def test_answers_are_kept_and_found_again(script: Script, tmp_path: Path) -> None:
    script.answers = ["ok 1", "ok 2", "wrong"]
    path = tmp_path / "answers.sqlite"
    assert not server(script, answers=path).ask(QUESTION, fine).cached
    again = server(script, answers=path).ask(QUESTION, fine)
    assert again.cached and again.text == "ok 1" and len(script.asked) == 1
    other = Question(instructions="be brief", text="what is it?", images=(Image.new("RGB", (8, 6), "blue"),))
    assert server(script, answers=path).ask(other, fine).text == "ok 2"
    third = Question(instructions="be long", text="what is it?")
    for _ in range(2):  # one with a problem is not kept
        assert server(script, answers=path).ask(third, fine, repairs=0).problem is not None
    assert len(script.asked) == 4


def test_the_budget(script: Script) -> None:
    script.answers = ["ok"]
    asked = server(script, max_requests=1)
    asked.ask(QUESTION, fine)
    with pytest.raises(VlmError, match="budget of 1 requests is spent"):
        asked.ask(QUESTION, fine)


def test_a_server_elsewhere_is_named_before_pictures_leave(caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = Server(url="http://vlm.example.invalid/v1", name="m", timeout_s=1.0, max_retries=0)
    assert not elsewhere.is_local and Server(url="http://[::1]:80/v1", name="m").is_local
    assert Server(url="http://localhost/v1", name="m").is_local
    with caplog.at_level(logging.WARNING), pytest.raises(VlmError, match="cannot be reached"):
        elsewhere.ask(QUESTION, fine)
    assert "pictures leave this machine for vlm.example.invalid" in caplog.text


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="is no address of a server"):
        Server(url="localhost:8000", name="m")
    with pytest.raises(ValueError, match="give a positive time"):
        Server(url="http://localhost", name="m", timeout_s=0)
    with pytest.raises(ValueError, match="give 1 or more"):
        Server(url="http://localhost", name="m", max_requests=0)


def test_large_pictures_are_sent_smaller(script: Script) -> None:
    large = Question(instructions="be brief", text="what is it?", images=(Image.new("RGBA", (4000, 2160)),))
    script.answers = ["ok"]
    server(script).ask(large, fine)
    url = script.asked[0]["messages"][1]["content"][0]["image_url"]["url"]
    data = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (2000, 1080)
    assert "[picture, 2000x1080 px]" in shown(large)
    assert estimate_tokens(large) == 63 * 34 + 5  # ceil(2000 / 32) * ceil(1080 / 32), and 19 letters


SCHEMA = {"type": "object", "properties": {"score": {"type": "integer", "maximum": 5}}, "required": ["score"]}
SCORE = Question(instructions="judge", text="how good?", schema=SCHEMA)


def test_an_answer_of_a_schema(script: Script) -> None:
    script.answers = ['{"score": 4}']
    assert server(script).ask(SCORE).value == {"score": 4}
    assert script.asked[0]["response_format"]["json_schema"]["schema"] == SCHEMA
    script.answers = ['{"score": 4', '{"score": 9}', '```json\n{"score": 5}\n```']  # cut short, too much, in a fence
    assert server(script).ask(SCORE).value == {"score": 5}
    complaints = [asked["messages"][-1]["content"] for asked in script.asked[2:]]
    assert "It must be JSON" in complaints[0] and "at $.score" in complaints[1]
    script.answers = ["four"]
    answer = server(script).ask(SCORE, repairs=0)
    assert answer.problem is not None
    with pytest.raises(ValueError):
        answer.value  # noqa: B018


def test_a_server_that_knows_no_schemas_is_told_in_words(script: Script) -> None:
    script.answers = [(400, {"error": {"message": "response_format is not supported"}}), '{"score": 1}', '{"score": 2}']
    asked = server(script)
    assert asked.ask(SCORE).value == {"score": 1}
    assert asked.ask(Question(instructions="judge", text="and this?", schema=SCHEMA)).value == {"score": 2}
    assert "response_format" in script.asked[0] and not any("response_format" in each for each in script.asked[1:])
    assert all('"maximum": 5' in each["messages"][0]["content"] for each in script.asked[1:])


def test_a_refusal_is_told_apart(script: Script) -> None:
    script.answers = [reply(None, refusal="I will not")]
    with pytest.raises(VlmRefusal):
        server(script).ask(QUESTION, fine)


def test_an_answer_that_is_cut_off_is_asked_for_again(script: Script) -> None:
    script.answers = [reply("ok the", finish_reason="length"), "ok, a ball"]
    assert server(script).ask(QUESTION, fine).text == "ok, a ball"
    assert "cut off after 1024 tokens" in script.asked[1]["messages"][-1]["content"]
    script.answers = [reply("ok the", finish_reason="length")]
    answer = server(script).ask(QUESTION, fine, repairs=1)
    assert answer.text == "ok the" and answer.problem is not None and "cut off" in answer.problem


def test_what_a_model_thinks_is_no_answer(script: Script) -> None:
    script.answers = ["<think>a ball?\nor a cube?</think>\n\nok, a ball"]
    assert server(script).ask(QUESTION, fine).text == "ok, a ball"


def test_words_as_they_come(script: Script) -> None:
    script.answers = [["ok, ", "a ", "ball"], ["ok, ", None]]
    heard: list[str] = []
    assert server(script).ask(QUESTION, fine, on_text=heard.append).text == "ok, a ball"
    assert heard == ["ok, ", "a ", "ball"] and script.asked[0]["stream"] is True
    with pytest.raises(VlmError, match="stopped in the middle"):
        server(script).ask(QUESTION, fine, on_text=heard.append)


def test_many_threads_keep_to_one_budget(script: Script) -> None:
    script.answers = ["ok"]
    asked = server(script, max_requests=8)

    def work(at: int) -> str:
        return asked.ask(Question(instructions="be brief", text=str(at)), fine).text

    assert [text for _, text in in_parallel(work, range(8), workers=4)] == ["ok"] * 8
    with pytest.raises(VlmError, match="budget of 8 requests"):
        work(8)
    assert asked.sent == len(script.asked) == 8
