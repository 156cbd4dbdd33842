from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from chronoedit.errors import OutputError
from chronoedit.ledger import Ledger, fingerprint


def test_records_survive_reopening(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "job.jsonl"
    ledger = Ledger(path)
    ledger.append("first", {"score": 0.5, "text": "zwölf\nlines"})
    ledger.append("second", {"score": 1})
    ledger.append("first", {"score": 0.75})
    again = Ledger(path)
    assert again.records() == ledger.records() == [{"key": "first", "score": 0.75}, {"key": "second", "score": 1}]
    assert again.get("second") == {"key": "second", "score": 1}
    assert again.get("third") is None and "first" in again and len(again) == 2
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_line_cut_anywhere_is_done_anew(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "job.jsonl"
    Ledger(path).append("first", {"n": 1})
    whole = path.read_bytes()
    Ledger(path).append("second", {"n": 2})
    path.write_bytes(path.read_bytes()[:-cut])
    ledger = Ledger(path)
    assert "first" in ledger and "second" not in ledger
    assert path.read_bytes() == whole
    ledger.append("second", {"n": 3})
    assert Ledger(path).get("second") == {"key": "second", "n": 3}


@pytest.mark.parametrize("line", ["{broken", "[1, 2]", '{"no": "key"}', "3", ""])
def test_a_broken_line_is_an_error_that_names_it(tmp_path: Path, line: str) -> None:
    path = tmp_path / "job.jsonl"
    path.write_text(f'{{"key": "a"}}\n{line}\n{{"key": "b"}}\n')
    with pytest.raises(OutputError, match="line 2 of .*job.jsonl"):
        Ledger(path)


def test_what_json_cannot_hold_writes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "job.jsonl")
    with pytest.raises(TypeError):
        ledger.append("a", {"path": Path("x")})
    with pytest.raises(ValueError):
        ledger.append("a", {"score": float("nan")})
    with pytest.raises(ValueError, match="'key'"):
        ledger.append("a", {"key": "b"})
    assert len(ledger) == 0 and not ledger.path.exists()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "job.jsonl")
    ledger.append("a", {"n": 1})
    whole = ledger.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="job.jsonl: No space left on device"):
        ledger.append("b", {"n": 2})
    assert ledger.path.read_bytes() == whole and "b" not in ledger


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Is a directory"):
        Ledger(tmp_path)


def test_a_caller_cannot_change_what_is_recorded(tmp_path: Path) -> None:
    record = {"list": [1]}
    ledger = Ledger(tmp_path / "job.jsonl")
    ledger.append("a", record)
    record["list"].append(2)
    assert ledger.get("a") == {"key": "a", "list": [1]}


def test_fingerprint_depends_on_content_alone() -> None:
    assert fingerprint({"a": 1, "b": [1, None]}) == fingerprint(json.loads('{"b": [1, null], "a": 1}'))
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    assert len(fingerprint([])) == 64
