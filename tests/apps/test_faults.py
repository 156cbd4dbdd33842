"""Faults of the real kind, in processes of their own: Ctrl-C from a terminal, and a limit on memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

resource = pytest.importorskip("resource")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_real_interrupt_leaves_nothing_half_done(random_checkpoint_no_image: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photo.png")
    command = [sys.executable, "-m", "chronoedit", "edit", "-i", "photo.png", "-p", "go", "-o", "out.png", "--verbose"]
    command += ["--model-path", str(random_checkpoint_no_image), "--num-inference-steps", "5000"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        while "in torch.float32" not in process.stderr.readline():  # the model is open
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        err, out = process.stderr.read(), process.stdout.read()
    assert process.returncode == 130 and out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted; files that were being written have been removed"
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


LIMITED = """
import resource, sys
from pathlib import Path
from PIL import Image
from chronoedit.editing.loading import load
from chronoedit.errors import OutOfMemory
from chronoedit.request import EditRequest

def request(side):
    return EditRequest(image=Image.new("RGB", (64, 64), "red"), prompt="go", seed=1, num_inference_steps=1,
                       height=side, width=side)

editor = load(sys.argv[1], device="cpu")
before = editor.edit(request(64)).image
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
try:
    editor.edit(request(2048))
except OutOfMemory as error:
    print(error.stage, editor.placement.layout)
assert editor.edit(request(64)).image.tobytes() == before.tobytes()
print("edits again")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_that_really_runs_out(random_checkpoint_no_image: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(random_checkpoint_no_image)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.split()[1] == "disk" and second == "edits again"
    assert "it is done again, so that weights stay in their files" in done.stderr
