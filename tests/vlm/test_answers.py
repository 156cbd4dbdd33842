"""Kept answers: found again by any process, and a damaged file says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronoedit.errors import OutputError
from chronoedit.vlm.answers import Answers


def test_the_first_answer_of_a_key_stays_for_whoever_opens_the_file(tmp_path: Path) -> None:
    one, two = Answers(tmp_path / "answers.db"), Answers(tmp_path / "answers.db")
    one.put("key", "model", "first")
    two.put("key", "model", "second")
    assert one.get("key") == two.get("key") == "first" and one.get("other") is None and len(two) == 1


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    path.write_bytes(b"no database at all, whatever its name says" * 20)
    with pytest.raises(OutputError, match=f"{path} cannot be used: .*; it is damaged: move it away"):
        Answers(path).get("key")
    assert path.read_bytes().startswith(b"no database")
    with pytest.raises(OutputError, match="cannot be used") as info:
        Answers(tmp_path).get("key")
    assert "move it away" not in str(info.value)
