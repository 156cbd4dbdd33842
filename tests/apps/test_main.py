"""The way from `argv` to a command and back: help, exit codes, messages, logs, progress bars."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from chronoedit import __version__
from chronoedit.apps import main as module
from chronoedit.apps.commands import edit
from chronoedit.apps.main import main
from chronoedit.apps.progress import WORDS, StageBars
from chronoedit.errors import CheckpointError, EditCancelled
from chronoedit.request import STAGES, Progress

GOOD = ["edit", "-i", "a.png", "-p", "x"]
SCREEN = 45  # lines of a terminal


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Make `edit` do something else: raise what is given, or call it."""

    def set_run(action: object) -> None:
        def run(_: edit.Edit) -> object:
            if isinstance(action, BaseException):
                raise action
            return action() if callable(action) else action

        monkeypatch.setattr(edit.Edit, "run", run)

    return set_run


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (None, 0, ""),
        (CheckpointError("no model there"), 1, "error: no model there\n"),
        (ValueError("steps 0; use 1"), 2, "error: steps 0; use 1\n"),
        (KeyboardInterrupt(), 130, "interrupted; files that were being written have been removed\n"),
        (EditCancelled("stopped"), 130, "stopped\n"),
    ],
)
def test_exit_codes_and_messages(
    running: Callable[[object], None], capsys: pytest.CaptureFixture[str], outcome: object, code: int, message: str
) -> None:
    running(outcome)
    assert main(GOOD) == code
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize("flag", ["--verbose", "-v"])
def test_verbose_shows_where_an_error_came_from(
    running: Callable[[object], None], capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    running(CheckpointError("no model there"))
    assert main([*GOOD, flag]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and err.endswith("error: no model there\n")


def test_an_error_that_is_a_bug_keeps_its_traceback(running: Callable[[object], None]) -> None:
    running(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(GOOD)


def test_warnings_of_the_library_reach_the_user_and_details_only_when_verbose(
    running: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def log() -> None:
        logging.getLogger("chronoedit.model").warning("the prompt is cut")
        logging.getLogger("chronoedit.model").debug("a detail")

    running(log)
    main(GOOD)
    assert capsys.readouterr().err == "WARNING: the prompt is cut\n"
    main([*GOOD, "-v"])
    assert "a detail" in capsys.readouterr().err
    assert logging.getLogger("chronoedit").handlers == []


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert "edit a picture" in overview and len(overview.splitlines()) <= SCREEN
    assert main([]) == 2
    assert capsys.readouterr().out == overview
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"chronoedit {__version__}\n"


def test_unknown_commands_name_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edti"]) == 2
    assert "there is no command 'edti'; choose from edit, chain" in capsys.readouterr().err


def test_groups_with_commands_of_two_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Sample:
        """Draw one."""

        seed: int = 0

        def run(self) -> int:
            print(f"seed {self.seed}")
            return 0

    commands = {"world sample": Sample, "world export": Sample}
    assert module._run("world", commands, ["world", "sample", "--seed", "4"]) == 0
    assert capsys.readouterr().out == "seed 4\n"
    assert module._run("world", commands, ["world", "--help"]) == 0
    assert "world sample  Draw one." in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no command 'world sell'; choose from world sample, world export"):
        module._run("world", commands, ["world", "sell"])


def every_command() -> list[str]:
    names = []
    for name, group in module._available().items():
        names += [command for command in module._commands(group) if command.split()[0] == name]
    return names


@pytest.mark.parametrize("command", every_command())
def test_each_group_of_flags_fits_a_screen(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    groups = re.split(r"(?m)^\W*(?=(?:\w+ )*options\b)", text)  # the title of a group, boxed or not
    assert "--verbose" in groups[0] and len(groups) > 1
    assert max(len(group.splitlines()) for group in groups) <= SCREEN
    assert max(len(line) for group in groups[1:] for line in group.splitlines()) <= 100


def test_every_command_is_registered() -> None:
    assert {"edit", "chain"} <= set(every_command())
    files = {path.stem for path in Path(edit.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {name for group in module._available().values() for name in module.present(group)}


def test_bars_of_every_stage_on_a_terminal() -> None:
    assert set(WORDS) == set(STAGES)
    screen = io.StringIO()
    with StageBars(Console(file=screen, force_terminal=True, width=100)) as bars:
        for stage in STAGES:
            bars.update(Progress(stage, 0, 4))
            bars.update(Progress(stage, 4, 4))
        bars.update(Progress("denoise", 0, 4))  # the next edit of a chain
    assert all(word in screen.getvalue() for word in WORDS.values()) and "4/4" in screen.getvalue()
    assert len(bars._bars.tasks) == len(STAGES) + 1


def test_no_bars_where_there_is_no_terminal() -> None:
    screen = io.StringIO()
    with StageBars(Console(file=screen)) as bars:
        bars.update(Progress("denoise", 1, 4))
    assert screen.getvalue() == ""


def test_python_m_and_its_exit_code() -> None:
    run = subprocess.run([sys.executable, "-m", "chronoedit", "edit", "--nope"], capture_output=True, text=True)
    assert run.returncode == 2 and "--nope" in run.stderr
