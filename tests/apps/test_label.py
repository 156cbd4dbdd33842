"""`chronoedit label`: the published flags for one pair, sets of every kind, a cluster, a dry run, the pages."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from chronoedit.apps.main import main
from chronoedit.data.formats import open_records
from chronoedit.data.label_file import read_labels
from chronoedit.vlm.labels import BACKWARD, DIRECTION, FORWARD, INSTRUCTION, REASONING

from ..data.conftest import PROMPTS, named_pairs, pair
from ..data.scripted import CAPTION, PARAGRAPH, table_of_pairs
from ..vlm.conftest import Script, script  # noqa: F401 - a fixture

KINDS = {INSTRUCTION: "instruction", DIRECTION: "direction", REASONING: "reasoning"}
GOOD = {"instruction": CAPTION, "direction": BACKWARD, "reasoning": PARAGRAPH}


def kind_of(asked: dict[str, Any]) -> str:
    return KINDS[asked["messages"][0]["content"]]


def answering(**answers: str) -> Callable[[dict[str, Any]], str]:
    return lambda asked: (GOOD | answers)[kind_of(asked)]


@pytest.fixture
def server(script: Script) -> Script:  # noqa: F811
    script.answers = answering()
    return script


@pytest.fixture
def two(tmp_path: Path) -> str:
    """The flags of one pair."""
    for name, pixels in zip(("before", "after"), pair(0), strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return f"--input-image {tmp_path}/before.png --output-image {tmp_path}/after.png"


def run(words: str) -> int:
    return main(["label", *shlex.split(words)])


def test_the_published_flags(server: Script, two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "captions" / "caption.txt"
    flags = f"{two} --output-file {output} --model Qwen/Qwen3-VL-30B-A3B-Instruct --vlm-url {server.url}"
    assert run(f"{flags} --generate-cot --max-resolution 24") == 0
    assert json.loads(output.read_text()) == {"caption": CAPTION, "caption_cot": PARAGRAPH}
    assert capsys.readouterr().out == f"{output}\n"
    assert [kind_of(asked) for asked in server.asked] == ["instruction", "direction", "reasoning"]
    assert {asked["model"] for asked in server.asked} == {"Qwen/Qwen3-VL-30B-A3B-Instruct"}
    assert sizes(server.asked[0]) == [(24, 24)] * 2
    server.asked.clear()
    assert run(f"{flags} --no-verify-direction --seed 5") == 0
    assert output.read_text() == f"{CAPTION}\n"
    assert [(kind_of(asked), asked["seed"]) for asked in server.asked] == [("instruction", 5)]
    assert sizes(server.asked[0]) == [(48, 48)] * 2


def sizes(asked: dict[str, Any]) -> list[tuple[int, int]]:
    parts = [part for part in asked["messages"][1]["content"] if part["type"] == "image_url"]
    data = [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in parts]
    return [Image.open(io.BytesIO(each)).size for each in data]


def test_one_pair_is_printed_without_a_file(server: Script, two: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{two} --vlm-url {server.url}") == 0
    assert capsys.readouterr().out == f"{CAPTION}\n"


def test_a_pair_with_a_problem_is_an_error(
    server: Script, two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = answering(direction=FORWARD)
    assert run(f"{two} --output-file {tmp_path}/c.txt --vlm-url {server.url}") == 1
    found = capsys.readouterr()
    assert CAPTION in found.err and "--no-verify-direction takes its word" in found.err and found.out == ""
    assert not (tmp_path / "c.txt").exists()
    server.answers = answering(instruction="a; b; c; d; e")
    assert run(f"{two} --vlm-url {server.url}") == 1
    assert "a; b; c; d; e" in capsys.readouterr().err


def test_a_set(server: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of_pairs(tmp_path / "set", 5)
    table.write_text(table.read_text().replace("k2,in0", "k2,none"))
    words = f"{table} --output {tmp_path}/out --vlm-url {server.url} --concurrency 3 --review {tmp_path}/review.html"
    assert run(words) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/out/labels.jsonl: 5 rows\n" in out and "  in metadata.csv: 4\n" in out
    assert "broken: 1 (its pictures cannot be read)" in out and "repeated captions: 3" in out
    assert out.splitlines()[-1] == f"{tmp_path}/out/metadata.csv"
    assert [record.prompt for record in open_records(tmp_path / "out").records] == [PARAGRAPH] * 4
    page = (tmp_path / "review.html").read_text()
    assert page.count("<img") == 8 and "data:image/png" in page and "http" not in page.replace("http-equiv", "")
    assert "none.png" in page and page.count(PARAGRAPH) == 4 and "right" in page
    asked = len(server.asked)
    assert run(f"{words} --prompts concise") == 0  # everything is there: only the table is written anew
    assert len(server.asked) == asked
    assert [record.prompt for record in open_records(tmp_path / "out").records] == [CAPTION] * 4


def test_upgrade_and_concise(server: Script, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    named_pairs(tmp_path / "set")
    assert run(f"{tmp_path}/set -o {tmp_path}/up --upgrade --no-verify-direction --vlm-url {server.url}") == 0
    assert [kind_of(asked) for asked in server.asked] == ["reasoning"] * 2
    lines = list(read_labels(tmp_path / "up" / "labels.jsonl"))
    assert [line["caption"] for line in lines] == list(PROMPTS)
    server.asked.clear()
    assert run(f"{tmp_path}/set -o {tmp_path}/short --prompts concise --vlm-url {server.url}") == 0
    assert Counter(map(kind_of, server.asked)) == {"instruction": 2, "direction": 2}
    server.asked.clear()
    assert run(f"{tmp_path}/set -o {tmp_path}/both --prompts concise --generate-cot --vlm-url {server.url}") == 0
    assert Counter(map(kind_of, server.asked)) == {"instruction": 2, "direction": 2, "reasoning": 2}


def test_shards_and_paths_from_elsewhere(server: Script, tmp_path: Path) -> None:
    table = table_of_pairs(tmp_path / "set", 5).rename(tmp_path / "set.csv")
    for part in ("1/2", "2/2"):
        words = f"{table} --dataset-base-path {tmp_path}/set -o {tmp_path}/out --shard {part} --vlm-url {server.url}"
        assert run(words) == 0
    assert sorted(record.key for record in open_records(tmp_path / "out").records) == [f"k{k}" for k in range(5)]


def test_a_budget_stops_the_job_and_it_goes_on(
    server: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of_pairs(tmp_path / "set", 20)
    words = f"{table} -o {tmp_path}/out --vlm-url {server.url} --concurrency 1"
    assert run(f"{words} --vlm-max-requests 9") == 1
    assert "the budget of 9 requests is spent" in capsys.readouterr().err
    assert len(open_records(tmp_path / "out" / "metadata.csv").records) == 3  # what there is can be trained on
    assert run(words) == 0
    assert len(open_records(tmp_path / "out").records) == 20


def test_interrupted_it_leaves_a_table_of_what_there_is(
    server: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chronoedit.data.label_job import LabelJob

    whole_run = LabelJob.run

    def interrupted(job: LabelJob, answer_all: Any, report: Callable[[int], None]) -> None:
        def stop(done: int) -> None:
            report(done)
            if done == 3:
                raise KeyboardInterrupt

        whole_run(job, answer_all, stop)

    table = table_of_pairs(tmp_path / "set", 9)
    words = f"{table} -o {tmp_path}/out --vlm-url {server.url}"
    with monkeypatch.context() as patch:
        patch.setattr(LabelJob, "run", interrupted)
        assert run(words) == 130
    assert len(open_records(tmp_path / "out" / "metadata.csv").records) == 3
    assert run(words) == 0 and len(open_records(tmp_path / "out").records) == 9


def test_a_dry_run_sends_nothing(server: Script, tmp_path: Path, two: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of_pairs(tmp_path / "set", 6)
    assert run(f"{table} -o {tmp_path}/out --dry-run --vlm-url {server.url}") == 0
    out = capsys.readouterr().out
    assert "6 rows, 0 of them labelled" in out and "questions: 18," in out and INSTRUCTION in out
    tokens = int(next(line for line in out.splitlines() if "tokens" in line).split()[-1])
    assert 6 * (len(INSTRUCTION + DIRECTION + REASONING) // 4) < tokens < 20_000
    assert not (tmp_path / "out").exists()
    assert run(f"{two} --dry-run --generate-cot") == 0 and REASONING in capsys.readouterr().out
    assert server.asked == []


def test_stats(server: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instructions = iter(["turn the ball red; lift the cup", "Turn the cup blue", "remove the hat", "move the hat"])

    def answers(asked: dict[str, Any]) -> str:
        return next(instructions) if kind_of(asked) == "instruction" else GOOD[kind_of(asked)]

    server.answers = answers
    table = table_of_pairs(tmp_path / "set", 4)
    words = f"{table} -o {tmp_path}/out --vlm-url {server.url} --vlm-model m --vlm-revision r1 --concurrency 1"
    assert run(words) == 0
    capsys.readouterr()
    assert main(["label", "stats", f"{tmp_path}/out/labels.jsonl", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 4 and found["kinds"] == {"labelled": 4} and found["models"] == {"m@r1": 4}
    assert found["verbs"] == {"turn": 2, "lift": 1, "remove": 1, "move": 1}
    assert found["changes_per_caption"] == {"1": 3, "2": 1} and found["directions"] == {"right": 4}
    assert found["instruction_words"] == {"texts": 4, "least": 3, "median": 4, "mean": 4.25, "most": 7}
    assert main(["label", "stats", f"{tmp_path}/out/labels.jsonl"]) == 0
    assert "verbs: turn 2, lift 1" in capsys.readouterr().out
    assert main(["label", "stats", f"{tmp_path}/none.jsonl"]) == 1


def test_what_cannot_be(two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of_pairs(tmp_path / "set", 1)
    for words, message in [
        ("", "give a pair (--input-image FILE --output-image FILE), or a set"),
        (f"--input-image {tmp_path}/set/in0.png", "give a pair"),
        (f"{table}", "give the folder to write: --output DIR"),
        (f"{table} -o {tmp_path}/out {two}", "--input-image, --output-image is for one pair"),
        (f"{two} --upgrade", "--upgrade is for a set"),
        (f"{two} --ray local", "--ray is for a set"),
        (f"{table} -o {tmp_path}/out --concurrency 0", "--concurrency 0; give 1 or more"),
        (f"{table} -o {tmp_path}/out --shard 3/2", "'3/2' is no part of a set"),
        (f"{table} -o {tmp_path}/out --review page.txt", "page.txt"),
        (f"{table} -o {tmp_path}/out --max-resolution 2", "--max-resolution 2; give 16"),
        (f"{table} -o {tmp_path}/out --ray-workers 2", "give its address with --ray"),
        (f"{table} -o {tmp_path}/out --ray local --ray-workers 2 --vlm-max-requests 1", "give one each at least"),
        (f"{table} -o {tmp_path}/out --vlm-url here", "here"),
        (f"{table} -o {tmp_path}/out --upgrade --prompts concise", "asks for the reasoning prompt"),
    ]:
        assert run(words) != 0, words
        assert message in capsys.readouterr().err, words
    assert run(f"{tmp_path}/none -o {tmp_path}/out --vlm-url http://localhost/v1") == 1
    assert "there is no" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_commands_of_the_page(server: Script, two: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "labelling.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edits").mkdir()
    named_pairs(tmp_path / "edits")
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    commands = [words for words in commands if "--ray" not in words]  # below
    assert len(commands) == 7
    for words in commands:
        words = [server.url if word == "http://localhost:8000/v1" else word for word in words]
        assert words[0] == "chronoedit" and main(words[1:]) == 0, words
    assert json.loads(Path("caption.txt").read_text())["caption"] == CAPTION
    assert len(open_records("labelled").records) == len(open_records("parts").records) == 2


def workers_of_ray() -> list[int]:
    """The processes of workers whose parents are of this test."""
    names = {int(path.parent.name): path for path in Path("/proc").glob("[0-9]*/cmdline")}
    found = []
    for pid, path in names.items():
        try:
            if path.read_bytes().startswith(b"ray::_Worker") and is_child(pid):
                found.append(pid)
        except OSError:
            continue
    return found


def is_child(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == os.getpid()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the worker to kill in /proc")
def test_a_cluster_with_a_worker_killed(
    server: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    rows, killed, lock = 60, [], threading.Lock()

    def answers(asked: dict[str, Any]) -> str:
        with lock:
            if len(server.asked) > rows and not killed:
                killed.append(workers_of_ray()[0])
                os.kill(killed[0], signal.SIGKILL)
        time.sleep(0.01)
        return GOOD[kind_of(asked)]

    server.answers = answers
    table = table_of_pairs(tmp_path / "set", rows)
    cluster = f"--ray local --ray-workers 2 --concurrency 2 --vlm-max-requests {6 * rows}"
    assert run(f"{table} -o {tmp_path}/out --vlm-url {server.url} {cluster}") == 0
    assert killed and not ray.is_initialized()
    lines = list(read_labels(tmp_path / "out" / "labels.jsonl"))
    assert [line["n"] for line in lines] == list(range(rows)) and all(line["problem"] is None for line in lines)
    assert len(open_records(tmp_path / "out").records) == rows
    assert len(server.asked) >= 3 * rows  # what the killed worker had under way is asked again
