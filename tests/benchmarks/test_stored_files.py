"""The files that the benchmark of precisions is run on: an edit of the embedded model reads each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.model.stored import StoredWeight
from chronoedit.runtime.quantize import relative_error

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "stored_files.py"


def test_the_embedded_model_in_each_format(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    done = subprocess.run([sys.executable, str(SCRIPT), "--folder", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    exact = open_checkpoint("tiny", device="cpu").transformer
    errors = {}
    for line in done.stdout.splitlines():
        found = open_checkpoint(line, base="tiny", device="cpu", as_stored=True).transformer
        stored = {name: p for name, p in found.named_parameters() if isinstance(p, StoredWeight)}
        assert stored.keys() == {n for n, p in exact.blocks.named_parameters(prefix="blocks") if p.ndim == 2}
        each = [relative_error(p.dequantize(), exact.get_parameter(name)) for name, p in stored.items()]
        errors[Path(line).stem] = sum(each) / len(each)
    order = ["Q8_0", "fp8", "Q5_1", "Q5_0", "Q4_1", "Q4_0"]
    assert sorted(errors, key=errors.__getitem__) == order
    assert 0 < errors["Q8_0"] < 0.01 and 0.05 < errors["Q4_0"] < 0.12
