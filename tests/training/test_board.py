"""What a run logs arrives in TensorBoard's files, and at a tracker that is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from chronoedit.errors import MissingExtraError
from chronoedit.training.board import TRACKERS, Board, check_tracker

RECORD = {"step": 7, "loss": 0.5, "lr": 1e-4, "note": "text", "good": True}


def test_tensorboard_gets_numbers_and_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Board(tmp_path / "tensorboard") as board:
        board.write(RECORD)
        board.show("samples", Image.new("RGB", (6, 4), "red"), 7)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "lr"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(7, 0.5)]
    (picture,) = events.Images("samples")
    assert (picture.step, picture.width, picture.height) == (7, 6, 4)


def stub(name: str, calls: list[tuple[str, Any]]) -> ModuleType:
    """A package with the calls of the trackers, which notes them."""

    def init(**arguments: Any) -> SimpleNamespace:
        calls.append(("init", arguments))
        return SimpleNamespace(log=log, finish=finish)

    def log(values: dict[str, Any], step: int) -> None:
        calls.append(("log", (values, step)))

    def finish() -> None:
        calls.append(("finish", None))

    module = ModuleType(name)
    vars(module).update(init=init, log=log, finish=finish, Image=lambda image: ("picture", image.size))
    return module


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_a_tracker_gets_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    monkeypatch.setitem(sys.modules, name, stub(name, calls))
    check_tracker(name)
    config = {"recipe": {"targets": ("q", "v")}, "base": Path("a")}
    for _ in range(2):  # started again in the same folder, it is the same run
        with Board(tmp_path / "run" / "tensorboard", name, config) as board:
            board.write(RECORD)
            board.show("samples", Image.new("RGB", (6, 4)), 7)
    assert [kind for kind, _ in calls] == ["init", "log", "log", "finish"] * 2
    started, again = calls[0][1], calls[4][1]
    assert started == again and started["resume"] == "allow"
    assert (started["project"], started["name"]) == ("chronoedit", "run")
    assert started["config"] == {"recipe": {"targets": ["q", "v"]}, "base": "a"}
    assert calls[1][1] == ({"loss": 0.5, "lr": 1e-4}, 7)
    assert calls[2][1] == ({"samples": ("picture", (6, 4))}, 7)


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_an_absent_tracker_says_what_to_install(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=f"pip install {name}"):
        Board(tmp_path / "tensorboard", name)
    with pytest.raises(MissingExtraError):
        check_tracker(name)
    assert not list(tmp_path.iterdir())


def test_an_unknown_tracker_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="choose from wandb, trackio"):
        check_tracker("mlflow")
    check_tracker(None)
