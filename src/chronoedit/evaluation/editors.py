"""Whatever edits pictures, as a benchmark asks it: ours, a command, a folder of results; and two that do nothing.

An editor has a `name`, an `identity` that tells it from every other one, and `edit(case, image, seed)`. What it
cannot do raises EditFailed, and the item is kept with that.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np
from PIL import Image

from chronoedit.errors import ChronoEditError, ImageError
from chronoedit.media import IMAGE_SUFFIXES, load_image, save_image
from chronoedit.request import EditRequest, ImageEditor

from .cases import Case

PLACEHOLDER = re.compile(r"\{(\w+)\}")
PLACEHOLDERS = ("input", "prompt", "output", "seed")
SAID_CHARACTERS = 400  # of what a failed command wrote, from its end
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
NAME_CHARACTERS = 80


class EditFailed(ChronoEditError):
    """One item that an editor could not do."""


class CaseEditor(Protocol):
    """Anything that answers a case with a picture."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def edit(self, case: Case, image: Image.Image, seed: int) -> Image.Image:
        """The edited picture. Raises EditFailed."""


@dataclass(frozen=True, kw_only=True)
class Ours:
    """An editor of this package; `settings` are fields of every request."""

    editor: ImageEditor
    name: str
    identity: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def edit(self, case: Case, image: Image.Image, seed: int) -> Image.Image:
        try:
            request = EditRequest(image=image, prompt=case.prompt, seed=seed, at_photo_size=True, **self.settings)
            return self.editor.edit(request).image
        except (ValueError, ImageError) as error:
            raise EditFailed(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Command:
    """A program that is run once an item, without a shell: no word of a prompt is ever read as a command.

    `line` is split as a shell would; `{input}` (a PNG), `{prompt}`, `{output}` (the PNG to write) and `{seed}` are
    filled in, as whole arguments or within one. A run longer than `timeout_s` is ended, with what it started.
    Raises ValueError for a line without `{input}` or `{output}`, and for other names in braces.
    """

    line: str
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        found = set(PLACEHOLDER.findall(self.line))
        missing = [f"{{{name}}}" for name in ("input", "output") if name not in found]
        if missing:
            raise ValueError(f"the command {self.line!r} has no {' and no '.join(missing)}; say where they go")
        unknown = sorted(found - set(PLACEHOLDERS))
        if unknown:
            choices = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"the command has {{{unknown[0]}}}, which is unknown; choose from {choices}")
        if self.timeout_s <= 0:
            raise ValueError(f"a time-out of {self.timeout_s} s; give a positive number")
        self.words()

    @property
    def name(self) -> str:
        return self.line

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"command": self.line}

    def words(self) -> list[str]:
        """The arguments, with placeholders. Raises ValueError for quotes that do not close."""
        try:
            return shlex.split(self.line)
        except ValueError as error:
            raise ValueError(f"the command {self.line!r} cannot be split ({error}); check its quotes") from error

    def edit(self, case: Case, image: Image.Image, seed: int) -> Image.Image:
        with tempfile.TemporaryDirectory(prefix="chronoedit-", ignore_cleanup_errors=True) as folder:
            given, wanted = Path(folder) / "input.png", Path(folder) / "output.png"
            save_image(image, given)
            values = {"input": str(given), "prompt": case.prompt, "output": str(wanted), "seed": str(seed)}
            run_command([filled(word, values) for word in self.words()], self.timeout_s)
            if not wanted.exists():
                raise EditFailed("the command ended well but wrote no {output}")
            return _picture(wanted)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Results made elsewhere: a picture named after each case, KEY.png (.jpg .webp); of repeat k KEY-k.png.

    A key with slashes names a picture in folders, as the benchmarks' own scripts have it, or one as `file_stem` spells
    it. Raises ValueError when there is no such folder.
    """

    path: Path
    first_seed: int = 0

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise ValueError(f"there is no folder {self.path}; give one with a picture for each item")

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"folder": str(self.path.resolve())}

    def edit(self, case: Case, image: Image.Image, seed: int) -> Image.Image:
        names = [name for name in dict.fromkeys((case.key, file_stem(case.key))) if _stays_below(name)]
        repeat = seed - self.first_seed
        stems = [f"{name}-{repeat}" for name in names] + (names if repeat == 0 else [])
        found = next((path for stem in stems for path in self._paths(stem) if path.is_file()), None)
        if found is None:
            wanted = names[0] if repeat == 0 else stems[0]
            raise EditFailed(f"there is no picture {wanted}{IMAGE_SUFFIXES[0]} in {self.path}")
        return _picture(found)

    def _paths(self, stem: str) -> list[Path]:
        return [self.path / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES]


@dataclass(frozen=True)
class CopyInput:
    """Gives the input back: the floor of every score for what changed, the ceiling for what stays."""

    name: str = "copy"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"copy": True}

    def edit(self, case: Case, image: Image.Image, seed: int) -> Image.Image:
        return image


@dataclass(frozen=True)
class Noise:
    """Random pixels of the input's size, the same for the same case and seed: a judge that likes them is no judge."""

    name: str = "noise"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"noise": True}

    def edit(self, case: Case, image: Image.Image, seed: int) -> Image.Image:
        key = int.from_bytes(hashlib.sha256(case.key.encode()).digest()[:8], "big")
        pixels = np.random.default_rng((seed, key)).integers(0, 256, (image.height, image.width, 3), np.uint8)
        return Image.fromarray(pixels)


BASELINES: dict[str, CaseEditor] = {"copy": CopyInput(), "noise": Noise()}
"""The rows beside every editor."""


def open_external(text: str, timeout_s: float, first_seed: int = 0) -> Command | Folder:
    """The folder, or the command, that a word of the command line names. Raises ValueError when it is neither."""
    if Path(text).is_dir():
        return Folder(path=Path(text), first_seed=first_seed)
    if "{" not in text:
        raise ValueError(
            f"editor {text!r} is no folder and no command; give 'ours', a folder of results, or a command with "
            "{input}, {prompt} and {output}"
        )
    return Command(line=text, timeout_s=timeout_s)


def filled(word: str, values: Mapping[str, str]) -> str:
    """An argument with its placeholders filled in, in one go: what stands in braces in a prompt stays."""
    return PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)


def _stays_below(name: str) -> bool:
    path = PurePath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def file_stem(key: str) -> str:
    """A file name for a key: the key where it can be one, else what can be kept of it and a hash."""
    safe = UNSAFE.sub("-", key).strip(".-")
    if key and safe == key and len(key) <= NAME_CHARACTERS:
        return key
    return f"{safe[:NAME_CHARACTERS]}-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def run_command(words: list[str], timeout_s: float) -> None:
    """Run a program to its end, without a shell. Raises EditFailed when it cannot start, fails, or takes too long."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(  # a session of its own: what it starts is ended with it
                words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
        except (OSError, ValueError) as error:  # the second: a NUL in an argument
            raise EditFailed(f"{words[0]} cannot be run: {error}") from error
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise EditFailed(f"the command took longer than {timeout_s:g} s and was ended") from error
        finally:
            _end(process)
        if status:
            raise EditFailed(f"the command failed ({_how(status)}): {_tail(said)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants, whatever made us stop waiting; nothing happens to one that has ended."""
    if process.poll() is not None:
        return
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _how(status: int) -> str:
    return f"exit code {status}" if status > 0 else f"signal {-status}"


def _tail(said: Any) -> str:
    said.seek(0)
    text = said.read().decode("utf-8", "replace").strip()
    return text[-SAID_CHARACTERS:] or "it said nothing"


def _picture(path: Path) -> Image.Image:
    try:
        return load_image(path)
    except ImageError as error:
        raise EditFailed(str(error)) from error
