"""A set is labelled in bounded memory and in order; whatever kills it, no row is lost or done twice."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.data.formats import iter_records, open_records
from chronoedit.data.label import Label, Labeller, LabelSettings, first_and_last
from chronoedit.data.label_file import LabelFile, read_labels
from chronoedit.data.label_job import MAX_UNANSWERED, LabelJob, Row, Shard, write_metadata
from chronoedit.data.records import frames
from chronoedit.errors import OutputError, VlmError
from chronoedit.media import save_image
from chronoedit.vlm.asking import Question, Turn
from chronoedit.vlm.concurrency import in_parallel
from chronoedit.vlm.labels import INSTRUCTION

from .conftest import parquet, picture, published, webdataset
from .scripted import CAPTION, PARAGRAPH, Scripted, endless, good, table_of_pairs

Answered = Iterator[tuple[Row, Label]]


def answer_all(model: Scripted, workers: int = 2, **settings: bool) -> Callable[[Iterable[Row]], Answered]:
    labeller = Labeller(model=model, settings=LabelSettings(**settings))
    return lambda rows: in_parallel(lambda row: labeller.label(row.record), rows, workers)


def job_of(source: Path, output: Path, **changes: object) -> LabelJob:
    return LabelJob(source=source, output=output, model="scripted", **changes)


@pytest.mark.parametrize("write", [published, parquet, webdataset])
def test_the_table_can_be_trained_on_as_it_is(write: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write(tmp_path / "set")
    job = job_of(tmp_path / "set", tmp_path / "out")
    job.run(answer_all(Scripted()))
    counts = write_metadata(job.labels, job.metadata)
    assert counts["labelled"] == counts["rows"] == 2
    found = open_records(tmp_path / "out")
    assert found.format == "csv" and [record.prompt for record in found.records] == [PARAGRAPH] * 2
    for mine, given in zip(found.records, open_records(tmp_path / "set").records, strict=True):
        assert mine.key == given.key
        np.testing.assert_array_equal(frames(mine), frames(given))
    write_metadata(job.labels, job.metadata, "concise")
    assert [record.prompt for record in open_records(tmp_path / "out").records] == [CAPTION] * 2


def test_lines_say_who_answered_and_what_was_seen(tmp_path: Path) -> None:
    job = job_of(table_of_pairs(tmp_path / "set", 3), tmp_path / "out", revision="r1")
    job.run(answer_all(Scripted()))
    lines = list(read_labels(job.labels))
    assert [line["n"] for line in lines] == [0, 1, 2] and [line["key"] for line in lines] == ["k0", "k1", "k2"]
    first = lines[0]
    assert (first["model"], first["revision"], first["row"]) == ("scripted", "r1", "set.csv:2")
    assert (first["caption"], first["caption_cot"], first["problem"]) == (CAPTION, PARAGRAPH, None)
    assert first["pictures"]["image"] == str(tmp_path / "set" / "out0.png")
    assert [line["checks"]["repeats"] for line in lines] == [None, 0, 0]
    assert write_metadata(job.labels, job.metadata)["repeated captions"] == 2


def test_rows_with_problems_are_kept_and_left_out(tmp_path: Path) -> None:
    table = table_of_pairs(tmp_path / "set", 5)
    text = table.read_text().replace("k3", "k1")  # a key twice
    table.write_text(text.replace("k2,in0.png", "k2,none.png"))

    def script(question: Question, turns: list[Turn]) -> str:
        if question.instructions == INSTRUCTION and np.asarray(question.images[0])[0, 0, 0] == picture(0)[0, 0, 0]:
            return "no change"
        return good(question, turns)

    job = job_of(table, tmp_path / "out")
    model = Scripted(script=script)
    job.run(answer_all(model))
    lines = list(read_labels(job.labels))
    kinds = [line["problem"] and line["problem"]["kind"] for line in lines]
    assert kinds == ["pixels", None, "broken", "broken", "pixels"]
    assert "none.png" in lines[2]["problem"]["message"]
    assert lines[3]["problem"]["message"] == "its key 'k1' is that of row 1 already; rename one"
    assert model.kinds().count("instruction") == 3
    counts = write_metadata(job.labels, job.metadata)
    assert counts == {"rows": 5, "labelled": 1, "broken": 2, "pixels": 2}
    assert [record.key for record in open_records(job.metadata).records] == ["k1"]


def test_unchanged_rows_and_rows_without_a_prompt_are_counted(tmp_path: Path) -> None:
    table = table_of_pairs(tmp_path / "set", 2)
    save_image(Image.open(tmp_path / "set" / "in1.png"), tmp_path / "set" / "out1.png")
    model = Scripted(
        script=lambda question, turns: (
            "no change" if question.images[0].tobytes() == question.images[1].tobytes() else good(question, turns)
        )
    )
    job = job_of(table, tmp_path / "out")
    job.run(answer_all(model, reasoning=False))
    assert write_metadata(job.labels, job.metadata, "concise") == {"rows": 2, "labelled": 1, "unchanged": 1}
    assert write_metadata(job.labels, job.metadata) == {"rows": 2, "without a prompt": 1, "unchanged": 1}


def test_shards_make_one_set(tmp_path: Path) -> None:
    table = table_of_pairs(tmp_path / "set", 7)
    for index in (1, 2, 3):
        job = job_of(table, tmp_path / "out", shard=Shard.parse(f"{index}/3"))
        job.run(answer_all(Scripted()))
        write_metadata(job.labels, job.metadata)
    assert (tmp_path / "out" / "labels-2-of-3.jsonl").exists()
    assert sorted(record.key for record in open_records(tmp_path / "out").records) == [f"k{k}" for k in range(7)]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/", "-1/2"])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no part of a set; give one such as 1/4"):
        Shard.parse(text)


def test_going_on_asks_only_what_is_left(tmp_path: Path) -> None:
    job = job_of(table_of_pairs(tmp_path / "set", 6), tmp_path / "out")
    job.run(answer_all(Scripted()))
    whole = job.labels.read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in (0, 1, 4, 5, 6):
        job.labels.write_bytes(b"".join(lines[:kept]) + (lines[kept][:30] if kept < 6 else b""))
        model = Scripted()
        job.run(answer_all(model))
        assert job.labels.read_bytes() == whole  # repeats too, whose memory was ahead of the lines
        assert model.kinds().count("instruction") == 6 - kept
    (tmp_path / "out" / "labels.sqlite").unlink()
    job.labels.write_bytes(b"".join(lines[:3]))
    job.run(answer_all(Scripted()))
    assert job.labels.read_bytes() == whole  # it was made anew


def test_lines_of_another_set_are_refused(tmp_path: Path) -> None:
    job_of(table_of_pairs(tmp_path / "set", 3), tmp_path / "out").run(answer_all(Scripted()))
    other = table_of_pairs(tmp_path / "other", 2)
    with pytest.raises(OutputError, match=r"3 lines of another set, or the set has changed: row 2 was 'k2'"):
        job_of(other, tmp_path / "out").run(answer_all(Scripted()))
    labels = tmp_path / "out" / "labels.jsonl"
    labels.write_text("{}\n" + labels.read_text())
    with pytest.raises(OutputError, match=r"line 1 of .* is no label"):
        list(read_labels(labels))


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    job = job_of(table_of_pairs(tmp_path / "set", 1), tmp_path / "out")
    with (
        LabelFile(job.labels, tmp_path / "out" / "labels.sqlite"),
        pytest.raises(OutputError, match="wait for the run that has it open"),
    ):
        job.run(answer_all(Scripted()))


def test_a_model_that_is_gone_stops_the_job_and_it_goes_on_later(tmp_path: Path) -> None:
    job = job_of(table_of_pairs(tmp_path / "set", 30), tmp_path / "out")
    model = Scripted(max_requests=3 * 10)
    with pytest.raises(VlmError, match=r"the budget of 30 requests is spent.*\(from set.csv:12 on; "):
        job.run(answer_all(model, workers=1))
    assert [line["n"] for line in read_labels(job.labels)] == list(range(10))
    job.run(answer_all(Scripted()))
    assert all(line["problem"] is None for line in read_labels(job.labels))


def test_single_rows_that_cannot_be_asked_are_noted(tmp_path: Path) -> None:
    seen = 0

    def script(question: Question, turns: list[Turn]) -> str:
        nonlocal seen
        seen += question.instructions == INSTRUCTION
        if question.instructions == INSTRUCTION and 4 <= seen < 4 + MAX_UNANSWERED - 1:
            raise VlmError("too large")
        return good(question, turns)

    job = job_of(table_of_pairs(tmp_path / "set", 15), tmp_path / "out")
    job.run(answer_all(Scripted(script=script), workers=1))
    kinds = [line["problem"] and line["problem"]["kind"] for line in read_labels(job.labels)]
    assert kinds == [None] * 3 + ["unanswered"] * (MAX_UNANSWERED - 1) + [None] * (15 - 3 - MAX_UNANSWERED + 1)


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.data.test_label_job import answer_all, job_of, slow
from tests.data.scripted import Scripted
job_of(Path(sys.argv[1]), Path(sys.argv[2])).run(answer_all(Scripted(script=slow)))
"""


def slow(question: Question, turns: list[Turn]) -> str:
    time.sleep(0.002)
    return good(question, turns)


def test_killed_again_and_again_no_row_is_lost_or_doubled(tmp_path: Path) -> None:
    rows, kills = 400, 0
    table, labels = table_of_pairs(tmp_path / "set", rows), tmp_path / "out" / "labels.jsonl"
    words = [sys.executable, "-c", RUN, str(table), str(tmp_path / "out"), str(Path(__file__).parents[2])]
    for aim in (1, 90, 180, 270):
        process = subprocess.Popen(words)
        while process.poll() is None and (not labels.exists() or labels.read_bytes().count(b"\n") < aim):
            time.sleep(0.005)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills == 4
    with labels.open("ab") as file:
        file.write(b'{"n": 4')  # as if the last kill had come within a line
    assert subprocess.run(words, check=False).returncode == 0
    lines = list(read_labels(labels))
    assert [line["n"] for line in lines] == list(range(rows))
    assert [line["key"] for line in lines] == [f"k{k}" for k in range(rows)]
    assert [line["checks"]["repeats"] for line in lines] == [None] + [0] * (rows - 1)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.timeout(7200)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident memory from /proc")
def test_memory_stays_flat(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million rows with --all-seeds, some thousand otherwise; the pictures of all are decoded once, for speed."""
    rows = 1_000_000 if request.config.getoption("--all-seeds") else 8_000
    pictures = first_and_last(next(endless(tmp_path, 1)))
    monkeypatch.setattr("chronoedit.data.label.first_and_last", lambda _: pictures)
    monkeypatch.setattr("chronoedit.data.label_job.iter_records", lambda *_, **__: endless(tmp_path, rows))
    samples: list[int] = []

    def report(done: int) -> None:
        if done % (rows // 20) == 0:
            samples.append(resident_bytes())

    job = job_of(tmp_path, tmp_path / "out")
    job.run(answer_all(Scripted(remembers=False)), report)
    counts = write_metadata(job.labels, job.metadata)
    samples.append(resident_bytes())
    assert counts["labelled"] == rows
    growth = max(samples) - samples[2]
    print(f"{rows} rows: resident {samples[2] / 2**20:.0f} MiB after a tenth, then up to {growth / 2**20:.1f} MiB more")
    assert growth < 24 * 2**20


def test_a_long_table_is_read_as_it_is_asked(tmp_path: Path) -> None:
    table = table_of_pairs(tmp_path, 2)
    with table.open("a") as file:
        for k in range(2, 50_000):
            file.write(f"k{k},in0.png,out0.png\n")
    before = resident_bytes() if os.path.exists("/proc/self/statm") else 0
    count = sum(1 for _ in iter_records(table, captions=False))
    assert count == 50_000
    if before:
        assert resident_bytes() - before < 8 * 2**20


def test_labels_are_json_lines(tmp_path: Path) -> None:
    job = job_of(table_of_pairs(tmp_path / "set", 1), tmp_path / "out")
    strange = CAPTION + ' with "Füße" on it'
    model = Scripted(
        script=lambda question, turns: strange if question.instructions == INSTRUCTION else good(question, turns)
    )
    job.run(answer_all(model, reasoning=False))
    (line,) = job.labels.read_text().splitlines()
    assert json.loads(line)["caption"] == strange
    write_metadata(job.labels, job.metadata, "concise")
    assert open_records(job.metadata).records[0].prompt == strange
