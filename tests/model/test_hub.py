"""Hub ids through the real client: a cache filled beforehand, a hub on this machine, and none at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from chronoedit.model import hub

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "model_index.json": b'{"_class_name": "ChronoEditPipeline"}\n',
    # longer than twice the client's blocks of 10 MB, below which it keeps nothing of a broken transfer
    "transformer/diffusion_pytorch_model.safetensors": bytes(range(256)) * 100_000,
    "assets/teaser.png": b"not wanted",
    "weights.pth": b"not wanted either",
}
LARGE = "transformer/diffusion_pytorch_model.safetensors"


class Hub(ThreadingHTTPServer):
    """As much of the hub as a download asks for; the large file's first transfer breaks off in the middle."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.ranges: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        if path.startswith("/api/models/someone/small/tree/"):
            oid = "0" * 40
            tree = [{"type": "file", "path": name, "size": len(data), "oid": oid} for name, data in FILES.items()]
            self.reply(json.dumps(tree).encode(), body=body)
        elif path.startswith("/api/models/someone/small"):
            siblings = [{"rfilename": name} for name in FILES]
            self.reply(json.dumps({"id": "someone/small", "sha": REVISION, "siblings": siblings}).encode(), body=body)
        elif path.startswith(f"/someone/small/resolve/{REVISION}/"):
            self.reply_file(path.removeprefix(f"/someone/small/resolve/{REVISION}/"), body=body)
        else:
            self.reply(
                b"{}", 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, body=body
            )

    def reply_file(self, name: str, *, body: bool) -> None:
        data = FILES[name]
        named = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        if not body or name != LARGE:
            return self.reply(data, 200, named, body=body)
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        span = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if wanted else {}
        broken = len(self.server.ranges) == 1
        self.reply(data[begin:], 206 if wanted else 200, {**named, **span}, body=True, half=broken)

    def reply(
        self, data: bytes, status: int = 200, more: dict[str, str] | None = None, *, body: bool, half: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(more or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if half else data)
        if half:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests' output stays readable."""


@pytest.fixture
def local_hub() -> Iterator[Hub]:
    """A hub that listens on this machine."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def download(repo_id: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Download in a process of its own: the client reads its environment when it is imported."""
    code = (
        "import sys\nfrom chronoedit.errors import CheckpointError\nfrom chronoedit.model.hub import download\n"
        "try:\n    print(download(sys.argv[1]))\n"
        "except CheckpointError as error:\n    sys.exit(f'CheckpointError: {error}')"
    )
    settings = {"HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_ETAG_TIMEOUT": "5", **environment}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    command = [sys.executable, "-c", code, repo_id]
    return subprocess.run(command, env={**kept, **settings}, capture_output=True, text=True)


def fill_cache(cache: Path) -> Path:
    """A cache as an earlier download leaves it."""
    repo = cache / "hub" / "models--someone--small"
    snapshot = repo / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(REVISION)
    (snapshot / "model_index.json").write_text("{}")
    return snapshot


def test_download_resumes_and_is_found_again(local_hub: Hub, tmp_path: Path) -> None:
    first = download("someone/small", tmp_path, HF_ENDPOINT=local_hub.address, HF_HUB_DISABLE_XET="1")
    assert first.returncode == 0, first.stderr
    folder = Path(first.stdout.strip())
    assert (folder / LARGE).read_bytes() == FILES[LARGE]
    assert (folder / "model_index.json").read_bytes() == FILES["model_index.json"]
    assert not (folder / "weights.pth").exists()
    assert not (folder / "assets").exists()
    assert local_hub.ranges[0] is None
    assert any(wanted and not wanted.startswith("bytes=0-") for wanted in local_hub.ranges[1:]), "started from nothing"
    again = download("someone/small", tmp_path, HF_HUB_OFFLINE="1")
    assert Path(again.stdout.strip()) == folder, again.stderr


def test_an_id_that_does_not_exist(local_hub: Hub, tmp_path: Path) -> None:
    result = download("someone/nothing", tmp_path, HF_ENDPOINT=local_hub.address)
    assert result.returncode == 1
    assert "CheckpointError: no folder someone/nothing here and no such model on the hub" in result.stderr
    assert "check the spelling" in result.stderr


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_a_connection(environment: dict[str, str], tmp_path: Path) -> None:
    missing = download("someone/small", tmp_path, **environment)
    assert missing.returncode == 1
    assert "CheckpointError: no folder someone/small here, it is not in the hub's cache" in missing.stderr
    assert "connect and run it again, or copy a download of it here" in missing.stderr
    snapshot = fill_cache(tmp_path)
    found = download("someone/small", tmp_path, **environment)
    assert Path(found.stdout.strip()) == snapshot, found.stderr


@pytest.mark.parametrize("text", ["nvidia/ChronoEdit-14B-Diffusers", "a/b", "some.one/x_1"])
def test_forms_of_a_hub_id(text: str) -> None:
    assert hub.is_hub_id(text)


@pytest.mark.parametrize("text", ["tiny", "./a/b", "a/b/c", "/a/b", "a/", "a/b c", "../a", "C:\\a/b"])
def test_what_is_no_hub_id(text: str) -> None:
    assert not hub.is_hub_id(text)
