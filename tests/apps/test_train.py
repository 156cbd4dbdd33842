"""`chronoedit train`: from an empty folder to a model that edits, by recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronoedit.apps.main import main
from chronoedit.model.checkpoint import open_checkpoint

AUTOENCODER = """
[model]
base_dim = 4
decoder_base_dim = 4
[data]
items = 4
validation_items = 2
size_px = 32
workers = 1
[frames]
crop_px = 16
budget = { max_steps = 2 }
optimisation = { learning_rate = 1e-2, batch_size = 4 }
"""
EMBEDDED = """
[data]
items = 6
clip_every = 3
validation_items = 3
size_px = 32
workers = 1
[transformer]
num_heads = 1
num_layers = 1
ffn_dim = 48
input_layers = 1
input_heads = 1
[text]
d_model = 24
num_layers = 1
num_heads = 2
d_kv = 12
d_ff = 32
vocab_size = 100
[budget]
max_steps = 2
[optimisation]
learning_rate = 1e-3
batch_size = 2
[flow]
clip_batch = 1
"""


def test_from_an_empty_folder_to_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ae.toml").write_text(AUTOENCODER)
    (tmp_path / "dit.toml").write_text(EMBEDDED)
    first = ["train", "autoencoder", "--recipe", str(tmp_path / "ae.toml"), "--output", str(tmp_path / "ae")]
    assert main(first) == 0
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "ae" / "autoencoder"
    second = ["train", "embedded", "--recipe", str(tmp_path / "dit.toml"), "-o", str(tmp_path / "dit")]
    second += ["--autoencoder", str(tmp_path / "ae" / "autoencoder"), "--device", "cpu"]
    assert main(second) == 0
    captured = capsys.readouterr()
    assert Path(captured.out.strip()) == tmp_path / "dit" / "model"
    assert "step 2" in captured.err
    assert open_checkpoint(tmp_path / "dit" / "model").settings.target_area == 32 * 32
    assert main(second) == 0  # finished: nothing left to do
    assert "step" not in capsys.readouterr().err


def test_bad_arguments_are_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ae.toml").write_text(AUTOENCODER + "speed = 3\n")
    output = ["-o", str(tmp_path / "out")]
    assert main(["train", "autoencoder", "--recipe", str(tmp_path / "ae.toml"), *output]) == 2
    assert "unknown speed" in capsys.readouterr().err
    (tmp_path / "dit.toml").write_text(EMBEDDED)
    recipe = ["--recipe", str(tmp_path / "dit.toml")]
    assert main(["train", "embedded", *recipe, "--autoencoder", str(tmp_path), *output]) == 2
    assert "holds no autoencoder" in capsys.readouterr().err
    (tmp_path / "ae.toml").write_text(AUTOENCODER)
    assert main(["train", "autoencoder", "--recipe", str(tmp_path / "ae.toml"), *output, "--threads", "0"]) == 2
    assert "--threads 0" in capsys.readouterr().err
