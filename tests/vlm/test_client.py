"""The client against a scripted server: every way in which an answer can come, or not come."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from chronoedit.errors import VlmError
from chronoedit.vlm.client import Question, Server, ServerSettings, data_url

from .conftest import Script, reply

QUESTION = Question(instructions="be brief", text="what is it?", images=(Image.new("RGB", (8, 6), "red"),))


def server(script: Script, **changes: Any) -> Server:
    return Server(ServerSettings(**{"url": script.url, "model": "m", "timeout_s": 5.0, "max_retries": 2, **changes}))


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
        (reply("ok the", finish_reason="length"), "was cut off"),
    ],
)  # fmt: skip
def test_what_cannot_be_mended_is_said(script: Script, answer: Any, message: str) -> None:
    script.answers = [answer]
    with pytest.raises(VlmError, match=message):
        server(script, timeout_s=0.2 if answer == "hang" else 5.0).ask(QUESTION, fine)


def test_answers_are_kept_and_found_again(script: Script, tmp_path: Path) -> None:
    script.answers = ["ok 1", "ok 2", "wrong"]
    path = tmp_path / "answers.jsonl"
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
    settings = ServerSettings(url="http://vlm.example.invalid/v1", model="m", timeout_s=1.0, max_retries=0)
    assert not settings.is_local and ServerSettings(url="http://[::1]:80/v1", model="m").is_local
    assert ServerSettings(url="http://localhost/v1", model="m").is_local
    with caplog.at_level(logging.WARNING), pytest.raises(VlmError, match="cannot be reached"):
        Server(settings).ask(QUESTION, fine)
    assert "pictures leave this machine for vlm.example.invalid" in caplog.text


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="is no address of a server"):
        ServerSettings(url="localhost:8000", model="m")
    with pytest.raises(ValueError, match="give positive numbers"):
        ServerSettings(url="http://localhost", model="m", timeout_s=0)


def test_large_pictures_are_sent_smaller() -> None:
    data = base64.b64decode(data_url(Image.new("RGBA", (4000, 2160))).removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (2000, 1080)
