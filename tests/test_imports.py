"""The house has five floors: a module imports lower floors, and within its floor only what an arrow allows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "chronoedit"
GROUND = ("request", "errors", "host", "media", "ledger", "cache", "report", "sampling", "world", "weights")
FLOORS = {
    **dict.fromkeys(GROUND, 0),
    **dict.fromkeys(("model", "vlm"), 1),
    **dict.fromkeys(("lora", "runtime", "data"), 2),
    **dict.fromkeys(("editing", "training", "evaluation"), 3),
    "apps": 4,
}
ARROWS = {("report", "media"), ("cache", "media"), ("ledger", "media"), *((part, "errors") for part in GROUND)}
# The package's own __init__ names these parts lazily, which is what makes `import chronoedit` free of torch.
ROOT_MAY_NAME = {"editing", "request"}
ROOTS_OF_HEAVY_LIBRARIES = {"torch", "diffusers", "transformers"}


def part_of(module: str) -> str | None:
    """The part of the house that a dotted module name belongs to; None for other packages and the root itself."""
    names = module.split(".")
    return names[1] if names[0] == "chronoedit" and len(names) > 1 else None


def imported_modules(tree: ast.AST, package: tuple[str, ...]) -> list[tuple[int, str]]:
    """(line, dotted name) of every import statement, relative ones resolved against `package`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *([node.module] if node.module else [])))
            # `from chronoedit import request` imports a part; `from chronoedit.request import x` names it in the stem.
            found += [(node.lineno, f"{stem}.{alias.name}" if stem == "chronoedit" else stem) for alias in node.names]
    return found


def violations(source: str, path: Path) -> list[str]:
    """Every import of `source`, standing at `path` below the package, that points up or across without an arrow."""
    package = ("chronoedit", *path.parts[:-1])
    importer = path.parts[0].removesuffix(".py")
    wrong = []
    for line, module in imported_modules(ast.parse(source), package):
        imported = part_of(module)
        if imported is None or imported == importer or importer in ("__init__", "__main__"):
            continue
        if imported not in FLOORS:
            # `from chronoedit import Editor` goes through the root: inside the package, name the home instead.
            wrong += [f"{path}:{line} imports {module}, which is no part of the house"] * (imported != "__version__")
        elif FLOORS[imported] > FLOORS[importer]:
            wrong.append(f"{path}:{line} imports up: {module}")
        elif FLOORS[imported] == FLOORS[importer] and (importer, imported) not in ARROWS:
            wrong.append(f"{path}:{line} imports across, without an arrow: {module}")
    return wrong


def package_files() -> list[Path]:
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def test_every_module_stands_on_a_floor() -> None:
    parts = {path.parts[0].removesuffix(".py") for path in package_files()} - {"__init__", "__main__"}
    assert parts - FLOORS.keys() == set()
    assert {"errors", "request", "model", "sampling"} <= parts


def test_imports_point_down() -> None:
    wrong = [line for path in package_files() for line in violations((PACKAGE / path).read_text(), path)]
    assert wrong == []


def test_root_names_only_its_public_parts() -> None:
    modules = imported_modules(ast.parse((PACKAGE / "__init__.py").read_text()), ("chronoedit",))
    assert {part_of(module) for _, module in modules} - {None} <= ROOT_MAY_NAME


@pytest.mark.parametrize(
    ("path", "statement"),
    [
        ("sampling/loop.py", "from chronoedit.model.dit import ChronoEditDiT"),
        ("sampling/loop.py", "import chronoedit.editing.editor"),
        ("sampling/loop.py", "from chronoedit import editing"),
        ("sampling/loop.py", "from ..model import dit"),
        ("sampling/loop.py", "from .. import model"),
        ("world/scenes/table.py", "from ... import request"),
        ("request.py", "from . import media"),
        ("request.py", "def f():\n    from .model.dit import ChronoEditDiT"),
        ("media.py", "from chronoedit.report import page"),
        ("training/trainer.py", "from chronoedit.editing.editor import Editor"),
        ("evaluation/run.py", "from chronoedit import Editor"),
        ("lora/adapters.py", "from chronoedit.runtime import plan"),
        ("editing/editor.py", "from chronoedit.apps.main import main"),
    ],
)
def test_a_violation_is_caught(path: str, statement: str) -> None:
    assert len(violations(statement, Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "statement"),
    [
        ("editing/editor.py", "from chronoedit.model.dit import ChronoEditDiT"),
        ("editing/editor.py", "from . import prepare"),
        ("editing/editor.py", "from ..sampling.loop import denoise"),
        ("report.py", "from chronoedit.media import contact_sheet"),
        ("media.py", "from .errors import ImageError"),
        ("apps/main.py", "from chronoedit import __version__, evaluation"),
        ("model/keys.py", "import torch, numpy.linalg"),
    ],
)
def test_an_allowed_import_passes(path: str, statement: str) -> None:
    assert violations(statement, Path(path)) == []


def test_ground_floor_request_imports_torch_for_types_only() -> None:
    tree = ast.parse((PACKAGE / "request.py").read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    top_level = [
        node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in guarded
    ]
    roots = {name.split(".")[0] for node in top_level for _, name in imported_modules(node, ("chronoedit",))}
    assert roots & ROOTS_OF_HEAVY_LIBRARIES == set()
