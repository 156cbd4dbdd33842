"""The command `chronoedit`: finds the command that was asked for, imports that one alone, and runs it.

Exit codes: 0 done, 1 failed, 2 bad arguments, 130 interrupted.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from chronoedit import __version__
from chronoedit.apps.launch import is_first
from chronoedit.errors import ChronoEditError, EditCancelled

logger = logging.getLogger(__name__)

VERBOSE_FLAGS = ("--verbose", "-v")
CHATTY = ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer")
"""Libraries that warn, each time they are imported, of kernels that this machine has no use for."""
DONE, FAILED, BAD_ARGUMENTS, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Group:
    """A first word of the command line: the modules that have its commands, and what they are for."""

    modules: tuple[str, ...]
    summary: str


GROUPS: dict[str, Group] = {
    "edit": Group(("edit",), "edit a picture"),
    "chain": Group(("edit",), "several edits, each starting from the last result"),
    "batch": Group(("batch",), "many edits: a manifest, or a folder with prompts and seeds"),
    "enhance": Group(("enhance",), "put a request into the words that the model knows best"),
    "info": Group(("model",), "what a checkpoint, or a picture made here, is"),
    "convert": Group(("model",), "write a checkpoint in another layout"),
    "label": Group(("label",), "instructions for pairs and clips, by a vision-language model"),
    "data": Group(("data", "clips"), "training sets: what is in them, and what is wrong"),
    "lora": Group(("lora",), "LoRA files: what one is, other spellings, several as one"),
    "world": Group(("world",), "the small world: samples, training sets, scenes of your own"),
    "eval": Group(("eval", "bench_eval", "pbench", "trust"), "score editors: exactly, by judges, by people"),
    "train": Group(("train",), "train the small model, or one of your own"),
    "plan": Group(("plan",), "what an edit would take, in memory and time"),
    "doctor": Group(("doctor",), "what this machine has, and what is missing"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` when None) and return its exit code; messages go to stderr."""
    given = list(sys.argv[1:] if argv is None else argv)
    words = [word for word in given if word not in VERBOSE_FLAGS]
    verbose = len(words) < len(given)
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s" if verbose else "%(levelname)s: %(message)s"))
    if not verbose:
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
    project = logging.getLogger("chronoedit")
    before = project.level
    project.addHandler(handler)
    project.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        return _run_words(words, verbose)
    finally:
        project.removeHandler(handler)
        project.setLevel(before)


def _run_words(words: list[str], verbose: bool) -> int:
    try:
        _refuse_repeats(words)
        return _dispatch(words)
    except KeyboardInterrupt:
        return _report("interrupted; files that were being written have been removed", INTERRUPTED)
    except BrokenPipeError:  # whoever read the output (head, a pager) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it ends
        return FAILED
    except EditCancelled as error:
        return _report(str(error), INTERRUPTED)
    except (ValueError, ChronoEditError) as error:
        if verbose:
            logger.exception("the command failed")
        code = BAD_ARGUMENTS if isinstance(error, ValueError) else FAILED
        return _report(f"error: {error}", code)
    except SystemExit as error:  # how tyro ends on --help and on flags that it cannot parse
        return error.code if isinstance(error.code, int) else BAD_ARGUMENTS if error.code else DONE


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"chronoedit {__version__}")
        return DONE
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return DONE if words else BAD_ARGUMENTS
    name = words[0]
    if name not in _available():
        raise ValueError(f"there is no command {name!r}; choose from {', '.join(_available())} (see chronoedit --help)")
    return _run(name, _commands(GROUPS[name]), words)


def _run(name: str, commands: Mapping[str, type[Any]], words: list[str]) -> int:
    chosen = next((command for command in _longest_first(commands) if words[: len(command)] == command), None)
    if chosen is None:
        choices = [command for command in commands if command.split()[0] == name]
        if any(word in ("-h", "--help") for word in words) or len(words) == 1:
            print(_group_overview(name, {choice: commands[choice] for choice in choices}))
            return DONE if len(words) > 1 else BAD_ARGUMENTS
        raise ValueError(f"there is no command {' '.join(words[:2])!r}; choose from {', '.join(choices)}")
    kind = commands[" ".join(chosen)]
    if getattr(kind, "takes_recipe", False):
        from chronoedit.apps.recipe_file import with_recipe

        words = with_recipe(words)
    command = tyro.cli(
        kind,
        prog=f"chronoedit {' '.join(chosen)}",
        description=f"{inspect.cleandoc(kind.__doc__ or '')}\n\n-v, --verbose: tell more, and where an error came from",
        args=words[len(chosen) :],
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return command.run() or DONE


def _longest_first(commands: Mapping[str, type[Any]]) -> list[list[str]]:
    return sorted((command.split() for command in commands), key=len, reverse=True)


def _commands(group: Group) -> dict[str, type[Any]]:
    """The commands of a group, of all its modules (which import nothing heavy)."""
    found: dict[str, type[Any]] = {}
    for module in present(group):
        found |= importlib.import_module(f"chronoedit.apps.commands.{module}").COMMANDS
    return found


def present(group: Group) -> list[str]:
    """The modules of a group that are there."""
    return [module for module in group.modules if importlib.util.find_spec(f"chronoedit.apps.commands.{module}")]


def _available() -> dict[str, Group]:
    return {name: group for name, group in GROUPS.items() if present(group)}


def _overview() -> str:
    lines = [f"  {name:<9} {group.summary}" for name, group in _available().items()]
    return "\n".join(
        [
            f"chronoedit {__version__}: edit a picture by imagining the short video that leads to the edit",
            "",
            *lines,
            "",
            "chronoedit COMMAND --help says more of one. Flags are read with - and _ alike;",
            "every command takes --verbose (-v): it tells more, and shows where an error came from.",
            "Exit codes: 0 done, 1 failed, 2 bad arguments, 130 interrupted.",
        ]
    )


def _group_overview(name: str, commands: Mapping[str, type[Any]]) -> str:
    width = max(len(command) for command in commands)
    lines = [f"  {command:<{width}}  {_summary(kind)}" for command, kind in commands.items()]
    return "\n".join([f"chronoedit {name}: {GROUPS[name].summary}", "", *lines, "", "Each has its own --help."])


def _summary(kind: type[Any]) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]


def _refuse_repeats(words: list[str]) -> None:
    """Raise ValueError for a flag that is given twice: the first would be lost without a word."""
    flags = [word.split("=")[0].replace("_", "-") for word in words if word.startswith("--") and len(word) > 2]
    repeated = next((flag for flag in flags if flags.count(flag) > 1), None)
    if repeated is not None:
        raise ValueError(f"{repeated} is given twice; give it once (several values go after one flag: --lora-path A B)")


class _StderrHandler(logging.Handler):
    """Log lines to what `sys.stderr` is at that moment, so that a progress bar can step aside for them."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _report(message: str, code: int) -> int:
    if code != BAD_ARGUMENTS or is_first():  # which all of several processes find in the same flags
        print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
