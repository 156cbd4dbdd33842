"""The package asks for what its code imports, and for nothing else; each of it has a tested version."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# what a distribution is imported as, where the two differ
IMPORTED_AS = {"pillow": "PIL"}
# diffusers imports accelerate when it loads weights piece by piece, torch.utils.tensorboard imports tensorboard
NEEDED_BY_OTHERS = {"accelerate", "tensorboard"}
EXTRAS = ("cluster", "gguf", "judge", "lora", "parquet", "quantize", "vlm")


def requirements(section: str) -> set[str]:
    """Names of the distributions in one list of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^{section} = \[(.*?)\]$", text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    return set(re.findall(r'"([A-Za-z0-9_-]+)', found[1]))


def third_party_imports() -> set[str]:
    names = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"chronoedit", "tomllib"}


def test_code_imports_what_is_asked_for() -> None:
    core = {IMPORTED_AS.get(name, name) for name in requirements("dependencies")}
    extras = set().union(*(requirements(extra) for extra in EXTRAS))
    assert third_party_imports() - core - extras == set()
    assert core - third_party_imports() - NEEDED_BY_OTHERS == set()
    assert extras - NEEDED_BY_OTHERS <= third_party_imports()


def test_every_requirement_has_a_tested_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    wanted = requirements("dependencies") | requirements("dev")
    wanted = wanted.union(*(requirements(extra) for extra in EXTRAS))
    wanted -= {"chronoedit"}  # the dev extra asks for the other extras by this name
    assert wanted - pinned == set()
    assert pinned - wanted == set()


def test_weights_and_types_are_shipped() -> None:
    assert (ROOT / "src/chronoedit/py.typed").exists()
    ignored = (ROOT / ".gitignore").read_text()
    assert "weights" not in ignored and "safetensors" not in ignored  # hatchling leaves out what git ignores
