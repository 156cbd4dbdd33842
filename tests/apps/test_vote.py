"""The page of `eval vote`, asked over HTTP as a browser would, and as a browser must not."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from chronoedit.apps.main import main
from chronoedit.apps.vote_page import MAX_BODY_BYTES, Booth, VoteServer
from chronoedit.evaluation.contest import read_contest
from chronoedit.evaluation.votes import Votes
from chronoedit.media import save_image

ITEMS = 4
LEVELS = {"input": 10, "a": 100, "b": 200}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three folders of pictures, whose grey says whose they are and of which item."""
    for name, level in LEVELS.items():
        for k in range(ITEMS):
            suffix = "jpg" if name == "b" else "png"
            grey = Image.new("RGB", (32, 32), (level + 8 * k,) * 3)
            save_image(grey, tmp_path / f"folder-{name}" / f"item{k}.{suffix}", {"model": f"secret-{name}"})
    for k in range(ITEMS):
        (tmp_path / "folder-input" / f"item{k}.txt").write_text(f"ask {k} <b>&")
    return tmp_path


def words(folders: Path, *more: str) -> list[str]:
    named = [str(folders / f"folder-{name}") for name in ("a", "b", "input")]
    return ["eval", "vote", *named[:2], "--inputs", named[2], "--output", str(folders / "out"), *more]


class Visit:
    """A server on the folders, and a client of it."""

    def __init__(self, folders: Path, **settings: Any) -> None:
        contest = read_contest(folders / "folder-a", folders / "folder-b", inputs=folders / "folder-input")
        self.votes = Votes(folders / "out" / "votes.jsonl")
        self.server = VoteServer(Booth(contest, self.votes, **settings), voter="")
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        host = headers.pop("host", f"127.0.0.1:{self.port}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        if body is not None and "content_length" not in headers:
            headers["content_length"] = str(len(body))
        for name, value in {"host": host, **headers}.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        reply = connection.getresponse()
        answer = reply.status, dict(reply.getheaders()), reply.read()
        connection.close()
        return answer

    def post(self, path: str, value: object, **headers: str | None) -> tuple[int, Any]:
        usual = {"content_type": "application/json", "origin": f"http://127.0.0.1:{self.port}"}
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        status, _, data = self.ask("POST", path, body, **{**usual, **headers})
        return status, json.loads(data)

    def state(self, voter: str = "Ada") -> Any:
        status, state = self.post("/state", {"voter": voter})
        assert status == 200
        return state

    def vote(self, choice: str, voter: str = "Ada", seconds: float = 1.5) -> Any:
        question = self.state(voter)["question"]["id"]
        status, state = self.post("/vote", {"voter": voter, "question": question, "choice": choice, "seconds": seconds})
        assert status == 200
        return state

    def level(self, address: str) -> int:
        status, headers, data = self.ask("GET", address)
        assert status == 200 and headers["Content-Type"] == "image/png"
        return Image.open(io.BytesIO(data)).getpixel((0, 0))[0]  # type: ignore[index]


@pytest.fixture
def visit(folders: Path) -> Iterator[Visit]:
    visit = Visit(folders)
    yield visit
    visit.close()


def test_it_listens_to_this_machine_alone(visit: Visit) -> None:
    assert visit.server.server_address[0] == "127.0.0.1"
    assert visit.server.url == f"http://127.0.0.1:{visit.port}/"


def test_the_page_needs_nothing_beside_it(visit: Visit) -> None:
    status, headers, data = visit.ask("GET", "/")
    html = data.decode()
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert not re.search(r"https?://|src=\"(?!$)|@import", html)
    nonce = re.search(r"script-src 'nonce-([^']+)'", headers["Content-Security-Policy"])
    assert nonce is not None and html.count(f'nonce="{nonce[1]}"') == 2
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
    assert 'name="viewport"' in html and 'lang="en"' in html and "<label for" in html
    assert html.count("<img") == html.count("alt=")


def test_a_vote_from_first_to_last(visit: Visit, folders: Path) -> None:
    state = visit.state()
    assert (state["done"], state["total"], state["can_undo"]) == (0, ITEMS, False)
    chosen = {}
    for done in range(ITEMS):
        question = visit.state()["question"]
        item = question["prompt"].split()[1]
        assert question["prompt"] == f"ask {item} <b>&" and question["number"] == done + 1
        levels = {place: visit.level(question[place]) - 8 * int(item) for place in ("input", "left", "right")}
        assert levels["input"] == LEVELS["input"] and levels["left"] != levels["right"]
        chosen[f"item{item}"] = min(("a", "b"), key=lambda name: abs(LEVELS[name] - levels["left"]))
        state = visit.vote("left")
    assert state["question"] is None and state["done"] == ITEMS
    votes = Votes(folders / "out" / "votes.jsonl").of("Ada")
    assert {item: vote.winner for item, vote in votes.items()} == chosen
    assert all(vote.seconds == 1.5 and vote.left == vote.winner for vote in votes.values())


def test_nothing_says_whose_is_which(visit: Visit) -> None:
    sent = [json.dumps(visit.state(voter)) for voter in ("Ada", "Bo")]
    assert not any(word in text for text in sent for word in ("folder", "item", "secret", ".jpg", ".png"))
    questions = [json.loads(text)["question"] for text in sent]
    addresses = [question[place] for question in questions for place in ("input", "left", "right")]
    assert len(set(addresses)) == 6  # each voter has addresses of their own
    assert all(re.fullmatch(r"/picture/[0-9a-f]{32}", address) for address in addresses)
    for address in addresses:
        _, headers, data = visit.ask("GET", address)
        assert b"secret" not in data and Image.open(io.BytesIO(data)).info == {}
        assert headers.keys() & {"Last-Modified", "ETag", "Content-Disposition"} == set()


def test_both_sides_are_used(folders: Path) -> None:
    sides = set()
    for seed in range(8):
        visit = Visit(folders, seed=seed, items=1)
        try:
            visit.vote("left", f"voter {seed}")
        finally:
            visit.close()
        sides |= {vote.left for vote in visit.votes.all()}
    assert sides == {"a", "b"}


def test_undo_asks_again(visit: Visit) -> None:
    first = visit.state()["question"]
    assert visit.vote("right")["question"]["prompt"] != first["prompt"]
    status, state = visit.post("/undo", {"voter": "Ada"})
    assert status == 200 and state["question"] == first and not state["can_undo"]
    assert visit.vote("tie")["done"] == 1 and [vote.choice for vote in visit.votes.all()] == ["tie"]
    visit.post("/undo", {"voter": "Bo"})  # who has nothing to take back
    assert len(visit.votes.all()) == 1


def test_a_question_is_answered_once(visit: Visit) -> None:
    question = visit.state()["question"]["id"]
    body = {"voter": "Ada", "question": question, "choice": "left", "seconds": 1}
    states = [visit.post("/vote", body)[1] for _ in range(2)]
    assert states[0] == states[1] and len(visit.votes.all()) == 1
    visit.post("/vote", {**body, "voter": "Bo"})  # another's question
    assert not visit.votes.of("Bo")


def test_voters_go_on_where_they_were(folders: Path) -> None:
    for done in range(2):
        visit = Visit(folders)
        try:
            assert visit.state("Ada")["done"] == done and visit.state("Bo")["done"] == 0
            visit.vote("left", "Ada")
        finally:
            visit.close()


def test_many_vote_at_once(visit: Visit, folders: Path) -> None:
    def all_of(voter: str) -> int:
        for _ in range(ITEMS):
            state = visit.vote("right", voter)
        return state["done"]

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(all_of, [f"voter {k}" for k in range(6)])) == [ITEMS] * 6
    votes = Votes(folders / "out" / "votes.jsonl").all()
    assert len(votes) == 6 * ITEMS and len({vote.number for vote in votes}) == 6 * ITEMS


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "evil.example:8756", "", "[::1]", None])
def test_another_name_of_this_machine_is_refused(visit: Visit, host: str | None) -> None:
    assert visit.ask("GET", "/", host=host)[0] == 403
    question = visit.state()["question"]
    assert visit.ask("GET", question["left"], host=host)[0] == 403
    body = {"voter": "Ada", "question": question["id"], "choice": "left", "seconds": 1}
    assert visit.post("/vote", body, host=host, origin=f"http://{host}")[0] == 403
    assert not visit.votes.all()


def test_localhost_and_a_forwarded_port_are_served(visit: Visit) -> None:
    for host in ("localhost:9000", "127.0.0.1", f"localhost:{visit.port}"):
        assert visit.ask("GET", "/", host=host)[0] == 200
        assert visit.post("/state", {"voter": "Ada"}, host=host, origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://localhost:1", "http://127.0.0.1"])
def test_votes_from_another_page_are_refused(visit: Visit, origin: str | None) -> None:
    body = {"voter": "Ada", "question": visit.state()["question"]["id"], "choice": "left", "seconds": 1}
    for path in ("/vote", "/undo", "/state"):
        assert visit.post(path, body, origin=origin)[0] == 403
    assert not visit.votes.all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "Expecting"),
        (b"\xff", "utf-8"),
        (b"[1]", "JSON object"),
        (b"[" * 4000, "flat"),
        ({"voter": 5}, "send a text"),
        ({"voter": "a/b"}, "no name"),
        ({"choice": "best"}, "no choice"),
        ({"choice": "undone"}, "no choice"),
        ({"question": None}, "send a text"),
        ({"seconds": "1"}, "send a number"),
        ({"seconds": True}, "send a number"),
        ({"seconds": -1}, "send a number"),
        ({"seconds": float("nan")}, "send a number"),
        ({"seconds": 10**400}, "send a number"),
    ],
)
def test_what_is_no_vote(visit: Visit, body: Any, message: str) -> None:
    if isinstance(body, dict):
        question = visit.state()["question"]["id"]
        body = {"voter": "Ada", "question": question, "choice": "left", "seconds": 1, **body}
    status, answer = visit.post("/vote", body)
    assert status == 400 and message in answer["error"]
    assert not visit.votes.all()
    assert visit.state()["done"] == 0  # and the server is there


def test_requests_that_are_refused(visit: Visit) -> None:
    assert visit.post("/vote", {}, content_type="text/plain")[0] == 415
    assert visit.post("/vote", {}, content_length=str(MAX_BODY_BYTES + 1))[0] == 413
    assert visit.post("/vote", {}, content_length="-1")[0] == 413
    assert visit.post("/vote", {}, content_length=None)[0] == 413
    assert visit.post("/shutdown", {})[0] == 404
    assert visit.ask("GET", "/folder-a/item0.png")[0] == 404
    assert visit.ask("GET", "/picture/../../etc/passwd")[0] == 404
    assert visit.ask("GET", f"/picture/{'0' * 32}")[0] == 404
    assert visit.ask("PUT", "/")[0] == 501


def test_a_damaged_picture_is_no_clue(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    for k in range(ITEMS):
        (folders / "folder-b" / f"item{k}.jpg").write_bytes(b"no picture")
    visit = Visit(folders)
    try:
        question = visit.state()["question"]
        replies = [visit.ask("GET", question[place]) for place in ("left", "right")]
        assert sorted(status for status, _, _ in replies) == [200, 500]
        failed = next(data for status, _, data in replies if status == 500)
        assert b"folder" not in failed and b"item" not in failed
        assert "folder-b" in caplog.text  # whoever started the server is told
    finally:
        visit.close()


def test_a_real_browser_shows_the_question(folders: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("this machine has no Chromium to show the page in")
    visit = Visit(folders)
    visit.server.voter = "Ada"
    try:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
        profile = f"--user-data-dir={folders / 'profile'}"
        shown = subprocess.run([browser, *flags, profile, visit.server.url], capture_output=True, text=True, timeout=90)
    finally:
        visit.close()
    assert re.search(r'<p id="prompt">ask \d &lt;b&gt;&amp;</p>', shown.stdout), shown.stderr[-2000:]
    assert f"0 of {ITEMS} done, Ada" in shown.stdout and 'id="left" alt="the left edit" src="/picture/' in shown.stdout


def started(folders: Path, *more: str) -> tuple[subprocess.Popen[str], int]:
    """The command as a process of its own, and its port."""
    command = [sys.executable, "-m", "chronoedit", *words(folders, "--port", "0", *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        # a shell that runs the tests in its background has them ignore interrupts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    assert address is not None, line + process.stdout.read()
    return process, int(address[1])


def post(port: int, path: str, value: object) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{port}"}
    connection.request("POST", path, json.dumps(value), headers)
    return json.loads(connection.getresponse().read())


def test_the_command_survives_a_kill_and_counts_when_interrupted(folders: Path) -> None:
    for done, ends in ((0, signal.SIGKILL), (1, signal.SIGINT)):
        process, port = started(folders, "--items", "3", "--voter", "Ada")
        try:
            state = post(port, "/state", {"voter": "Ada"})
            assert (state["done"], state["total"]) == (done, 3)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
                assert b'data-voter="Ada"' in page.read()
            choice = {"voter": "Ada", "question": state["question"]["id"], "choice": "left", "seconds": 2}
            assert post(port, "/vote", choice)["done"] == done + 1
        finally:
            process.send_signal(ends)
            printed = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "2 votes on 2 items" in printed and "report.html" in printed
    summary = json.loads((folders / "out" / "summary.json").read_text())
    assert summary["votes"] == 2 and summary["voters"].keys() == {"Ada"}
    assert {path.name for path in (folders / "out").iterdir()} == {
        "vote.json",
        "votes.jsonl",
        "summary.json",
        "report.html",
    }


def test_report_alone(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(folders, "--report")) == 2
    assert "nobody has voted yet" in capsys.readouterr().err
    visit = Visit(folders, items=2)
    try:
        visit.vote("tie")
        assert visit.vote("left")["question"] is None  # of two items
    finally:
        visit.close()
    assert main(words(folders, "--report", "--json")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["overall"]["tie"]["rate"] == 0.5 and summary["a"].endswith("folder-a")
    assert main(words(folders, "--report")) == 0
    printed = capsys.readouterr().out
    assert "2 votes on 2 items" in printed and str(folders / "out" / "report.html") in printed.replace("\n", "")
    assert main(words(folders, "--report", "--seed", "1")) == 1
    assert "votes on others" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--items", "0"], 2, "below 1"),
        (["--port", "70000"], 2, "0 to 65535"),
        (["--voter", "a/b"], 2, "no name"),
        (["--row-a", "copy"], 2, "no rows"),
    ],
)
def test_bad_arguments(
    folders: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, message: str
) -> None:
    assert main(words(folders, *more)) == code
    assert message in capsys.readouterr().err
    assert not (folders / "out").exists()


def test_a_port_that_is_taken(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(words(folders, "--port", str(taken.getsockname()[1]))) == 1
    assert "choose another --port" in capsys.readouterr().err


def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "vote", "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) < 50
