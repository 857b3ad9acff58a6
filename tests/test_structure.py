"""The order of packages: each stands on lower floors only, in functions and for types as well."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STRUCTURE = runpy.run_path(str(ROOT / "scripts" / "structure.py"))
circles, imports_of, modules_of, package_of = (
    STRUCTURE[name] for name in ("circles", "imports_of", "modules_of", "package_of")
)

FLOORS = {
    "teleport": [
        {"_arguments", "_errors", "_files", "_allocator", "_processes", "_undone"},
        {"_spaces", "_tangents"},
        {"_tracing"},
        {"_segments"},
        {"_engine", "_quiver"},
        {"_symmetry_groups"},
        {"_change_of_basis", "_frozen_forward", "_level_set", "_symmetry"},
        {"_matching", "_null_space", "_rescaling"},
        {"_auto", "_balance", "_orbits"},
        {""},
        {"integrations"},
    ],
    "experiments": [
        {"", "errors", "functions", "pools", "tasks"},
        {"configuration", "files", "memory"},
        {"data", "tracking"},
        {"models"},
        {"run"},
        {"benchmarks"},
        {"figures"},
        {"claims", "show", "tuning"},
        {"report"},
        {"command_line"},
    ],
}
"""Packages below a tree, from the ground floor up; "" is the ``__init__`` of the tree. No other may exist."""


def upward(root: Path, tree: str) -> list[str]:
    """The imports of ``tree`` that do not lead to a lower floor or stay in their package."""
    floor = {f"{tree}.{name}".rstrip("."): level for level, names in enumerate(FLOORS[tree]) for name in names}
    graph = imports_of(modules_of(root / tree))
    return [
        f"{module} imports {target}"
        for module, targets in graph.items()
        for target in sorted(targets)
        if package_of(module, tree) != package_of(target, tree)
        and not floor[package_of(target, tree)] < floor[package_of(module, tree)]
    ]


@pytest.mark.parametrize("tree", FLOORS)
def test_no_import_leads_upward(tree):
    assert upward(ROOT, tree) == []


@pytest.mark.parametrize("tree", FLOORS)
def test_no_modules_import_each_other(tree):
    assert circles(imports_of(modules_of(ROOT / tree))) == []


@pytest.mark.parametrize("form", ["{}", "def late():\n    {}", "if TYPE_CHECKING:\n    {}"])
def test_an_upward_import_is_found(tmp_path, form):
    """In each form that could hide one."""
    for package in ("_spaces", "_engine"):
        (tmp_path / "teleport" / package).mkdir(parents=True)
    (tmp_path / "teleport" / "__init__.py").touch()
    (tmp_path / "teleport" / "_engine" / "event.py").touch()
    (tmp_path / "teleport" / "_spaces" / "norms.py").write_text(form.format("from teleport._engine.event import run"))
    assert upward(tmp_path, "teleport") == ["teleport._spaces.norms imports teleport._engine.event"]


def test_a_circle_of_modules_is_found(tmp_path):
    (tmp_path / "teleport").mkdir()
    for name, other in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")):
        (tmp_path / "teleport" / f"{name}.py").write_text(f"import teleport.{other}\n")
    assert circles(imports_of(modules_of(tmp_path / "teleport"))) == [["teleport.a", "teleport.b", "teleport.c"]]


def test_the_library_imports_torch_alone():
    """Nothing of the suite, and no package that ``pip install .`` does not bring."""
    code = "import sys, teleport; print(sorted({n.partition('.')[0] for n in sys.modules} & set(sys.argv[1:])))"
    others = ["experiments", "hydra", "omegaconf", "pandas", "matplotlib", "torchvision", "sklearn", "nltk"]
    others += ["accelerate", "lightning", "transformers"]
    done = subprocess.run([sys.executable, "-c", code, *others], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
