"""A server that speaks the OpenAI protocol and answers by a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

GOOD = (
    "The user wants to have the small red ball on the left pushed to the right by the robot arm until it rests "
    "against the blue cube. The closed gripper comes down beside the ball, touches its left side, and moves slowly to "
    "the right along the table, so that the ball rolls in front of it without leaving the surface. In the end the "
    "ball lies still at the cube and the gripper stays next to it. The cube, the table, the wall, the light and the "
    "camera stay exactly as they are."
)


@dataclass
class Script:
    """Answers in their order, the last one for ever, and what was asked.

    An answer is a text, a list of its pieces (streamed; None breaks off), a whole reply, or (status, body); `answers`
    may be a function of the request instead.
    """

    answers: list[Any] | Callable[[dict[str, Any]], Any] = field(default_factory=lambda: [GOOD])
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""

    def next(self, asked: dict[str, Any]) -> Any:
        if callable(self.answers):
            return self.answers(asked)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def reply(text: str | None, **changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": changes.pop("refusal", None)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **changes}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def chunk(delta: dict[str, Any], ending: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": ending}
    return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            script.asked.append(asked)
            script.keys.append(self.headers.get("Authorization"))
            answer = script.next(asked)
            if answer == "drop":
                self.connection.close()
                return
            if answer == "hang":
                hanging.wait(5)
                return
            if isinstance(answer, list):
                self._stream(answer)
                return
            status, body = answer if isinstance(answer, tuple) else (200, answer)
            if isinstance(body, str) and status == 200 and body != "garbage":
                body = reply(body)
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("retry-after-ms", "1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, pieces: list[str | None]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for piece in pieces:
                if piece is None:
                    return
                self._event(chunk({"content": piece}))
            self._event(chunk({}, "stop"))
            self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, value: dict[str, Any]) -> None:
            self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    hanging = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield script
    hanging.set()
    server.shutdown()
    thread.join()
    server.server_close()
