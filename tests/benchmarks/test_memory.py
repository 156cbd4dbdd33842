"""The benchmark of memory: one case measured in a process of its own, and the table on its page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import memory as benchmark


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_case_is_measured_beside_its_plan_and_stands_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = benchmark.fresh(benchmark.Measured(height=64, width=64, steps=2))
    planned, measured = int(str(figures["planned_bytes"])), int(str(figures["measured_bytes"]))
    assert 0.3 < planned / measured < 3
    monkeypatch.setattr(benchmark, "fresh", lambda case: {**figures, "height": case.height, "width": case.width})
    page = tmp_path / "page.md"
    page.write_text("<!-- memory: begin -->\nold\n<!-- memory: end -->\n")
    benchmark.main(benchmark.Options(table=True, update=page))
    lines = [line for line in page.read_text().splitlines() if line.startswith("| tiny |")]
    assert [line.split(" | ")[1] for line in lines] == ["128×128", "256×256", "512×512", "128×128", "256×256"]
    assert lines[0].endswith(f" {planned / 1e6:.0f} MB | {measured / 1e6:.0f} MB | {planned / measured - 1:+.0%} |")
