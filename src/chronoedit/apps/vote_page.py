"""A page on this machine alone where people vote between two edits without knowing whose they are.

Nothing that reaches the browser names a run: pictures are written anew, without metadata, and their addresses are
made with a secret of this process, for each voter, item and side.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from chronoedit.apps.vote_html import page
from chronoedit.evaluation.contest import Contest, Pair
from chronoedit.evaluation.votes import CHOICES, Vote, Votes, check_voter, left_side, shuffled
from chronoedit.media import load_image

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost")
MAX_BODY_BYTES = 4096
TIMEOUT_S = 30
MAX_SECONDS = 10_000_000
FAILED = "That did not work; where the server was started it says why."
"""All that a voter is told of a failure: the message itself may name a file, and so whose edit it is."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Refused(Exception):
    """A request that is not answered, with its status."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Booth:
    """What the page asks of the server: the next question of a voter, and what was chosen. Threads may share one."""

    def __init__(self, contest: Contest, votes: Votes, *, seed: int = 0, items: int | None = None) -> None:
        self._contest, self._votes, self._seed = contest, votes, seed
        self._order = shuffled(seed, contest.pairs)[:items]
        self._secret = secrets.token_bytes(32)
        self._pictures: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def state(self, voter: str) -> dict[str, Any]:
        """How far the voter is, and the next question, None after the last. Raises ValueError for no name."""
        check_voter(voter)
        with self._lock:
            return self._state(voter)

    def vote(self, voter: str, question: str, choice: str, seconds: float) -> dict[str, Any]:
        """Record a choice; the state after it. A question that is no longer the voter's next one changes nothing.

        Raises ValueError for what is no vote, OutputError when it cannot be kept.
        """
        check_voter(voter)
        if choice not in CHOICES:
            raise ValueError(f"{choice!r} is no choice; choose {', '.join(CHOICES)}")
        with self._lock:
            item = self._next(voter)
            if item is not None and hmac.compare_digest(question, self._token(voter, item, "question")):
                left = left_side(self._seed, voter, item)
                self._votes.add(
                    Vote(voter=voter, item=item, left=left, choice=choice, seconds=round(seconds, 2), at=_now())
                )
            return self._state(voter)

    def undo(self, voter: str) -> dict[str, Any]:
        """Take back the voter's last vote, if there is one; the state after it."""
        check_voter(voter)
        with self._lock:
            self._votes.undo(voter, _now())
            return self._state(voter)

    def picture(self, token: str) -> bytes:
        """A picture that a question named, as PNG. Raises KeyError for another token, ImageError, DataError."""
        item, role = self._pictures[token]
        pair = self._contest.pairs[item]
        buffer = io.BytesIO()
        load_image(_source(pair, role)).save(
            buffer, "PNG", compress_level=1
        )  # it goes nowhere but through this machine
        return buffer.getvalue()

    def _state(self, voter: str) -> dict[str, Any]:
        known = self._votes.of(voter)
        done = sum(item in known for item in self._order)
        item = self._next(voter)
        question = None if item is None else self._question(voter, item, done + 1)
        return {"done": done, "total": len(self._order), "can_undo": bool(known), "question": question}

    def _next(self, voter: str) -> str | None:
        known = self._votes.of(voter)
        return next((item for item in self._order if item not in known), None)

    def _question(self, voter: str, item: str, number: int) -> dict[str, Any]:
        left = left_side(self._seed, voter, item)
        roles = {"input": "input", "left": left, "right": "b" if left == "a" else "a"}
        tokens = {place: self._token(voter, item, place) for place in roles}
        self._pictures.update({tokens[place]: (item, role) for place, role in roles.items()})
        addresses = {place: f"/picture/{token}" for place, token in tokens.items()}
        prompt = self._contest.pairs[item].prompt
        return {"id": self._token(voter, item, "question"), "number": number, "prompt": prompt, **addresses}

    def _token(self, voter: str, item: str, place: str) -> str:
        """`place` is where a picture stands, never whose it is."""
        message = json.dumps([voter, item, place]).encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:32]


class VoteServer(ThreadingHTTPServer):
    """Serves a booth on a port of the loopback address, a free one for port 0. Raises OSError when it is taken."""

    daemon_threads = True

    def __init__(self, booth: Booth, *, port: int = 0, voter: str = "") -> None:
        self.booth, self.voter = booth, voter
        super().__init__((LOOPBACK, port), Handler)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """One request. Those of another host's name, and votes from another page, are refused."""

    server: VoteServer
    server_version = "chronoedit"
    sys_version = ""
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("%s %s", self.address_string(), format % args)

    def _answer(self, work: Callable[[], None]) -> None:
        try:
            self._check_host()
            work()
        except Refused as error:
            self._send_json(error.status, {"error": str(error)})
        except ValueError as error:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except (ConnectionError, TimeoutError):  # the browser has gone, which is its right
            self.close_connection = True
        except Exception:  # one bad request must not end the server; the log says what it was
            logger.exception("%s failed", self.path)
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": FAILED})

    def _check_host(self) -> None:
        """Another name that leads to this machine (DNS rebinding) would let a foreign page read what is served."""
        host = self.headers.get("Host", "")
        if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
            raise Refused(HTTPStatus.FORBIDDEN, f"this page answers as {self.server.url} only")

    def _check_origin(self) -> None:
        origin = self.headers.get("Origin", "")
        if origin != f"http://{self.headers.get('Host', '')}":
            raise Refused(HTTPStatus.FORBIDDEN, "votes are taken from the page itself only")
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a vote is sent as application/json")

    def _get(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; img-src 'self' data:; connect-src 'self'; script-src 'nonce-{nonce}'; "
                f"style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
            html = page(voter=self.server.voter, nonce=nonce).encode()
            self._send(HTTPStatus.OK, html, "text/html; charset=utf-8", {"Content-Security-Policy": policy})
        elif path.startswith("/picture/"):
            try:
                data = self.server.booth.picture(path.removeprefix("/picture/"))
            except KeyError as error:
                raise Refused(HTTPStatus.NOT_FOUND, "there is no such picture; load the page again") from error
            self._send(HTTPStatus.OK, data, "image/png")
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page; open /")

    def _post(self) -> None:
        self._check_origin()
        if self.path not in ACTIONS:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is no such action; choose from {', '.join(ACTIONS)}")
        self._send_json(HTTPStatus.OK, ACTIONS[self.path](self.server.booth, self._body()))

    def _body(self) -> dict[str, Any]:
        """Raises ValueError for what is not a small JSON object."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY_BYTES:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a vote has a length, of {MAX_BODY_BYTES} bytes at most"
            )
        try:
            body = json.loads(self.rfile.read(int(length)))
        except RecursionError as error:
            raise ValueError("a vote is a flat JSON object") from error
        if not isinstance(body, dict):
            raise ValueError(f"a vote is a JSON object; got {type(body).__name__}")
        return body

    def _send_json(self, status: HTTPStatus, value: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: HTTPStatus, data: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **(more or {}), "Content-Type": kind, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; send a text")
    return value


def _seconds(body: Mapping[str, Any]) -> float:
    value = body.get("seconds")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"seconds is {str(value)[:40]}; send a number from 0 to {MAX_SECONDS}")
    return float(value)


ACTIONS: dict[str, Callable[[Booth, Mapping[str, Any]], dict[str, Any]]] = {
    "/state": lambda booth, body: booth.state(_text(body, "voter")),
    "/vote": lambda booth, body: booth.vote(
        _text(body, "voter"), _text(body, "question"), _text(body, "choice"), _seconds(body)
    ),
    "/undo": lambda booth, body: booth.undo(_text(body, "voter")),
}


def _source(pair: Pair, role: str) -> Any:
    return pair.input.read() if role == "input" else {"a": pair.a, "b": pair.b}[role]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
