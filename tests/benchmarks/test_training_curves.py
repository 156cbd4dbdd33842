"""Tables and curves of a training, from its logs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import training_curves
from training_curves import COURSES, Options


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for course in COURSES.values():
        records = [{"minutes": 3.0 * k, "step": 100 * k, **dict.fromkeys(course.columns, 1 / k)} for k in range(1, 31)]
        lines = [{"minutes": 1.0, "step": 50, "loss": 2.0}, *records]
        (tmp_path / course.file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_tables_end_with_the_last_line_of_the_log(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, picture = logs / "page.md", logs / "curves.svg"
    page.write_text(
        "".join(f"<!-- course of the {name}: begin -->\n<!-- course of the {name}: end -->\n" for name in COURSES)
    )
    training_curves.main(Options(logs=logs, picture=picture, update=page))
    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) <= len(COURSES) * (2 + training_curves.ROWS)
    assert [row[0] for row in rows if row[1] == "100"] == ["| 3"] * len(COURSES)
    assert rows[-1][:3] == ["| 90", "3000", "0.033"]
    assert "| 1" not in [row[0] for row in rows]  # without figures of held-out data
    assert len(ET.fromstring(picture.read_text()).findall("{http://www.w3.org/2000/svg}svg")) == len(COURSES)
    capsys.readouterr()


def test_a_short_log_is_shown_whole(logs: Path) -> None:
    course = COURSES["decoder"]
    records = training_curves.read(Options(logs=logs), course)[:3]
    assert [row[0] for row in training_curves.rows(course, records)] == ["3", "6", "9"]
