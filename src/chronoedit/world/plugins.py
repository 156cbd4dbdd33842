"""Scenes from files of one's own: a Python module with scene classes, and what they need in tables of its own.

What a file defines goes into the tables that every family of the package is in (TABLES), so that drawing, captions,
splits and scores know no difference. A file that is worth keeping for all is moved into `scenes/`, with a line there.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from types import ModuleType
from typing import Any

from . import skeleton
from .checks import CHECKS
from .kinds import KIND_TABLE, Kind
from .language import PHRASES
from .phrases.ways import WAYS
from .places import BACKDROPS
from .scenes import MIX, SCENES, Scene
from .splits import held_out_phrasings

logger = logging.getLogger(__name__)

NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Table:
    """A table of a scene file: where its entries go, and what each must be, as a test and in words."""

    entries: dict[str, Any]
    fits: Callable[[object], bool]
    wanted: str


def slots_of(text: str) -> frozenset[str] | None:
    """The names in braces in a phrasing; None where a brace does not close."""
    try:
        return frozenset(name for _, name, _, _ in Formatter().parse(text) if name is not None)
    except ValueError:
        return None


def _are_phrasings(entry: object) -> bool:
    """Two at least, since one is held out from training; with the same slots, since a scene fills any of them."""
    if not isinstance(entry, tuple) or not all(isinstance(text, str) for text in entry):
        return False
    slots = {slots_of(text) for text in entry}
    return len(set(entry)) > 1 and len(slots) == 1 and None not in slots


def _is_way(entry: object) -> bool:
    return isinstance(entry, str) and slots_of(entry) is not None


TABLES: dict[str, Table] = {
    "KINDS": Table(KIND_TABLE, lambda entry: isinstance(entry, Kind), "a Kind"),
    "PHRASES": Table(PHRASES, _are_phrasings, "a tuple of two phrasings or more, all with the same slots"),
    "PLACES": Table(BACKDROPS, callable, "a function (backdrop) -> list of Paint"),
    "WAYS": Table(WAYS, _is_way, "a text, with slots such as {a}"),
}
"""What a scene file may define besides its classes; `MIX`, a number, makes seeds draw its families by themselves."""


@dataclass(frozen=True, kw_only=True)
class SceneFile:
    """A file whose scenes are in the tables; `sha256` is that of its bytes."""

    path: Path
    sha256: str
    families: tuple[str, ...]


@contextmanager
def registered(paths: Sequence[Path]) -> Iterator[tuple[SceneFile, ...]]:
    """Within it the scenes of these files can be drawn; after it the tables are as they were. Raises as `register`."""
    tables: list[dict[str, Any]] = [SCENES, *(table.entries for table in TABLES.values()), MIX]
    before = [dict(table) for table in tables]
    try:
        yield tuple(register(path) for path in paths)
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
        held_out_phrasings.cache_clear()  # another file may call another edit by the same name


def register(path: Path) -> SceneFile:
    """Run a file and put its scenes into the tables, until the process ends.

    Raises ValueError for a file that cannot be read or run, that defines no scene or one that cannot be drawn, and
    that uses a name which exists.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ValueError(f"scene file {path} cannot be read: {error.strerror or error}") from error
    sha256 = hashlib.sha256(source).hexdigest()
    module = _run(path, source, f"chronoedit_scene_file_{sha256[:16]}")
    found, tables, weight = _scenes_of(module), _tables_of(path, module), _weight_of(path, module)
    if not found:
        raise ValueError(f"{path} defines no scene: give it a subclass of Scene with sample and state")
    phrases = {**PHRASES, **tables["PHRASES"]}
    for scene in found:
        _check(path, scene, phrases)
    _check_ways(path, tables["WAYS"], phrases)
    families = {scene.family: scene for scene in found}
    if len(families) < len(found):
        raise ValueError(f"{path}: two scene classes have one family; give each a name of its own")
    _add(path, "family", SCENES, families)
    for name, entries in tables.items():
        _add(path, f"entry of {name}", TABLES[name].entries, entries)
    if weight is not None:
        MIX.update(dict.fromkeys(families, weight))
    return SceneFile(path=path, sha256=sha256, families=tuple(families))


def skeleton_of(name: str) -> str:
    """The text of a scene file that works as it is: the skeleton, with its family, kind and edit named after `name`.

    Raises ValueError for a name that cannot be, or that exists.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a scene; use lower-case letters, digits and _, a letter first")
    taken = [table for table, names in (("family", SCENES), ("kind", KIND_TABLE)) if name in names]
    if taken:
        raise ValueError(f"there is a {taken[0]} {name!r} already; choose another name")
    text = Path(inspect.getfile(skeleton)).read_text(encoding="utf-8")
    spoken, class_name = name.replace("_", " ").strip(), "".join(word.capitalize() for word in name.split("_"))
    return text.replace('("beacon",)', f'("{spoken}",)').replace("Beacon", class_name).replace("beacon", name)


def _run(path: Path, source: bytes, name: str) -> ModuleType:
    """The file as a module, of these very bytes: the import system might take compiled ones of an earlier text."""
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except Exception as error:  # it is the user's code, which may raise anything
        del sys.modules[name]
        logger.debug("%s failed", path, exc_info=error)
        raise ValueError(f"{path}{_line_of(error, path)} cannot be run: {type(error).__name__}: {error}") from error
    return module


def _line_of(error: Exception, path: Path) -> str:
    """The last line of the file that led to the error, as ":12"; a syntax error says its own."""
    if isinstance(error, SyntaxError):
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""


def _scenes_of(module: ModuleType) -> list[type[Scene]]:
    """The scene classes that the module itself defines; one without all methods is there for others to build on."""
    classes = dict.fromkeys(each for each in vars(module).values() if inspect.isclass(each))
    own = [each for each in classes if issubclass(each, Scene) and each.__module__ == module.__name__]
    return [each for each in own if not inspect.isabstract(each)]


def _tables_of(path: Path, module: ModuleType) -> dict[str, Mapping[str, Any]]:
    tables = {}
    for name, table in TABLES.items():
        tables[name] = entries = getattr(module, name, {})
        if not isinstance(entries, dict):
            raise ValueError(f"{path}: {name} is a {type(entries).__name__}; make it a dict by name")
        for key, entry in entries.items():
            if not isinstance(key, str) or not table.fits(entry):
                raise ValueError(f"{path}: {name}[{key!r}] must be {table.wanted}")
    return tables


def _weight_of(path: Path, module: ModuleType) -> float | None:
    weight = getattr(module, "MIX", None)
    if weight is not None and not (isinstance(weight, (int, float)) and 0 < weight < math.inf):
        raise ValueError(f"{path}: MIX is {weight!r}; give a number above 0 (streets have {MIX['street']})")
    return weight


def _check(path: Path, scene: type[Scene], phrases: Mapping[str, object]) -> None:
    """Raise ValueError for a scene class without a family or edits, with an unknown check, or an edit without words."""
    where, family, edits = f"{path}: {scene.__name__}", getattr(scene, "family", None), getattr(scene, "edits", None)
    if not isinstance(family, str) or not NAME.fullmatch(family):
        raise ValueError(f"{where}.family is {family!r}; give it a name of lower-case letters, digits and _")
    if not isinstance(edits, tuple) or not edits:
        raise ValueError(f"{where}.edits is {edits!r}; give it a tuple of one name or more")
    checks = getattr(scene, "checks", ())  # a default; a scene may also choose them when it is made
    unknown = [name for name in checks if name not in CHECKS] if isinstance(checks, tuple) else []
    if unknown:
        raise ValueError(f"{where}: there is no check {unknown[0]!r}; choose from {', '.join(CHECKS)}")
    silent = next((edit for edit in edits if edit not in phrases), None)
    if silent is not None:
        raise ValueError(f"{where}: the edit {silent!r} has no phrasings; add PHRASES[{silent!r}]")


def _check_ways(path: Path, ways: Mapping[str, str], phrases: Mapping[str, tuple[str, ...]]) -> None:
    """Raise ValueError for a way of no edit, and for one with a slot that its edit's phrasings do not fill."""
    for edit, way in ways.items():
        if edit not in phrases:
            raise ValueError(f"{path}: WAYS[{edit!r}] is of no edit that has phrasings; correct its name")
        unfilled = sorted((slots_of(way) or frozenset()) - (slots_of(phrases[edit][0]) or frozenset()))
        if unfilled:
            raise ValueError(f"{path}: WAYS[{edit!r}] has a slot {{{unfilled[0]}}} that its phrasings do not have")


def _add(path: Path, what: str, table: dict[str, Any], entries: Mapping[str, Any]) -> None:
    taken = [name for name in entries if name in table]
    if taken:
        raise ValueError(f"{path}: the {what} {taken[0]!r} exists already; choose another name")
    table.update(entries)
