"""The benchmark of training steps runs at a small size, and its table has a line for each precision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_step.py"


def test_a_line_for_each_precision() -> None:
    words = ["--size", "tiny", "--height", "32", "--width", "32", "--steps", "1", "--precision", "native", "int8"]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("| ")] == ["base", "native", "int8"]
