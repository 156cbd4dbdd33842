"""A vision-language model in this process: Qwen-VL checkpoints of random weights, one of which learns two colours."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from chronoedit.errors import VlmError
from chronoedit.vlm.asking import Question, Turn
from chronoedit.vlm.local import Local, _qwen_inputs

from .tiny_qwen import write_tiny_qwen

COLOURS = ("red", "blue")


def question(colour: str, **changes: object) -> Question:
    picture = Image.new("RGB", (48, 32), colour)
    return Question(**{"instructions": "be brief", "text": "which?", "images": (picture,), "max_tokens": 12, **changes})


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def knows_colours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that was trained to say which of two colours a picture has."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    folder = write_tiny_qwen(tmp_path_factory.mktemp(request.param), request.param)
    tokenizer, pictures = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    batches = []
    for colour in COLOURS:
        asked = question(colour)
        turns = [
            Turn(role="system", text=asked.instructions),
            Turn(role="user", text=asked.text, images=asked.images),
        ]
        inputs = _qwen_inputs(turns, model, tokenizer, pictures)
        answer = tokenizer(f"{colour}<|im_end|>", return_tensors="pt", add_special_tokens=False)["input_ids"]
        length = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).int()
        labels = inputs["input_ids"].clone()
        labels[:, :length] = -100
        batches.append({**inputs, "labels": labels})
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = sum(model(**batch).loss for batch in batches)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


def test_it_sees_the_picture(knows_colours: Path) -> None:
    model = Local(name=str(knows_colours))
    heard: list[str] = []
    assert [model.ask(question(colour), on_text=heard.append).text for colour in COLOURS] == list(COLOURS)
    assert "".join(heard) == "redblue" and model.sent == 2
    model.close()
    assert model.ask(question("blue")).text == "blue"  # loaded anew


def test_what_is_wrong_is_repaired_or_said(knows_colours: Path) -> None:
    model = Local(name=str(knows_colours))
    answer = model.ask(question("red"), lambda text: None if text == "green" else "It must be green.", repairs=0)
    assert (answer.text, answer.problem) == ("red", "It must be green.")
    cut = model.ask(question("red", max_tokens=2), repairs=0)
    assert cut.text == "re" and cut.problem is not None and "cut off after 2 tokens" in cut.problem
    with pytest.raises(ValueError, match="must not have"):
        model.ask(question("red", text="<|image_pad|>"))


def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(VlmError, match="cannot be opened as a model of pictures and words"):
        Local(name=str(tmp_path)).ask(question("red"))
    monkeypatch.setattr("chronoedit.vlm.local._free_bytes", lambda: 1000)
    (tmp_path / "model.safetensors").write_bytes(b"0" * 2000)
    with pytest.raises(VlmError, match="0 GB of memory are free; use a smaller one"):
        Local(name=str(tmp_path)).ask(question("red"))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub is at an address that takes connections and never answers."""
    from huggingface_hub import constants

    silent = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
    monkeypatch.setattr("chronoedit.vlm.local.HUB_PATIENCE_S", 0.3)
    yield
    silent.close()


def test_a_hub_that_is_silent_is_not_waited_for(no_hub: None) -> None:
    began = time.monotonic()
    with pytest.raises(VlmError, match="owner/none is not on this machine, and the hub cannot be reached; connect"):
        Local(name="owner/none").ask(question("red"))
    assert time.monotonic() - began < 10  # its client alone would try for half a minute


def test_short_names() -> None:
    assert Local(name="Qwen3-VL-8B").name == "Qwen/Qwen3-VL-8B-Instruct"
    assert Local(name="some/other").name == "some/other"


WATCHED = """
import sys, torch, transformers
from pathlib import Path
from PIL import Image
from chronoedit.vlm.asking import Question
from chronoedit.vlm.local import Local

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

def ask(folder):
    model = Local(name=folder)
    model.ask(Question(instructions="", text="what?", images=(Image.new("RGB", (48, 32)),), max_tokens=4), repairs=0)
    return model

ask(sys.argv[1]).close()  # what is imported and allocated once
before = resident_mb()
model = ask(sys.argv[2])
loaded = resident_mb()
model.close()
print(before, loaded, resident_mb())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_the_memory_is_given_back(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    write_tiny_qwen(small)
    write_tiny_qwen(large, hidden=1024, layers=4)
    weights_mb = (large / "model.safetensors").stat().st_size / 1e6
    run = subprocess.run(
        [sys.executable, "-c", WATCHED, str(small), str(large)], capture_output=True, text=True, check=True
    )
    before, loaded, after = map(float, run.stdout.split())
    assert weights_mb > 150 and loaded - before > 0.9 * weights_mb
    assert after - before < 0.1 * weights_mb
