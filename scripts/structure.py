"""Count the modules, packages, imports and import circles of ``teleport/`` and ``experiments/``.

    python scripts/structure.py [--root CHECKOUT] [--edges]

Imports are read from the syntax tree, those inside functions and under ``TYPE_CHECKING`` included. A package's floor is
one above the highest package that it imports; a circle is a set of modules (or packages) that import each other.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

TREES = ("teleport", "experiments")

Graph = dict[str, set[str]]
"""A name -> the names that it imports."""


def modules_of(tree: Path) -> dict[str, Path]:
    """Dotted name -> file, of all Python modules below ``tree``; a package goes by its own name."""
    files = sorted(tree.rglob("*.py"))
    named = {".".join(file.relative_to(tree.parent).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in named.items()}


def imports_of(modules: Mapping[str, Path]) -> Graph:
    """Which modules of the same tree each module imports; importing a name of a package means the package."""
    graph: Graph = {}
    for name, file in modules.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {target if target in modules else node.module for target in targets}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        graph[name] = (found & modules.keys()) - {name}
    return graph


def package_of(module: str, tree: str) -> str:
    """The package right below the tree that a module is in; a module of the tree's top level is its own."""
    return ".".join(module.split(".")[:2]) if module != tree else tree


def packages_of(graph: Graph, tree: str) -> Graph:
    """The same between packages, less the package's own imports."""
    packages: Graph = {package_of(module, tree): set() for module in graph}
    for module, targets in graph.items():
        own = package_of(module, tree)
        packages[own] |= {package_of(target, tree) for target in targets} - {own}
    return packages


def circles(graph: Graph) -> list[list[str]]:
    """Sets of more than one name that import each other, directly or not (Tarjan's components), largest first."""
    reached = {name: _reachable(graph, name) for name in graph}
    together = {frozenset(other for other in reached[name] if name in reached[other]) | {name} for name in graph}
    return sorted((sorted(each) for each in together if len(each) > 1), key=len, reverse=True)


def floors(graph: Graph) -> dict[str, int]:
    """The floor of each name, 1 for those that import nothing; all of a circle stand on one floor."""
    level = dict.fromkeys(graph, 1)
    for _ in graph:
        for name, targets in graph.items():
            below = [level[target] for target in targets if name not in _reachable(graph, target)]
            level[name] = max([level[name], *(each + 1 for each in below)])
    return level


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph[waiting.pop()] - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def describe(root: Path, tree: str, edges: bool = False) -> Iterable[str]:
    """The counts of one tree, a line each."""
    modules = modules_of(root / tree)
    graph = imports_of(modules)
    packages = packages_of(graph, tree)
    lines = sum(len(file.read_text().splitlines()) for file in modules.values())
    yield f"{tree}: {len(modules)} modules, {lines} lines, {sum(map(len, graph.values()))} imports between modules"
    for kind, each in (("modules", graph), ("packages", packages)):
        found = circles(each)
        yield f"  circles of {kind}: {len(found)}" + "".join(f"\n    {', '.join(names)}" for names in found)
    level = floors(packages)
    between = sum(map(len, packages.values()))
    yield f"  {len(packages)} packages, {max(level.values())} floors, {between} imports between packages"
    for floor in range(max(level.values()), 0, -1):
        yield f"  floor {floor}: {', '.join(sorted(name for name in packages if level[name] == floor))}"
    if edges:
        yield from (f"  {name} -> {', '.join(sorted(targets))}" for name, targets in sorted(packages.items()))


def main() -> None:
    """Print the counts of ``teleport`` and ``experiments``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help="a checkout")
    parser.add_argument("--edges", action="store_true", help="name the imports between packages")
    arguments = parser.parse_args()
    for tree in TREES:
        if not (arguments.root / tree).is_dir():
            parser.error(f"--root takes a checkout of the project, and {arguments.root} has no {tree}/")
        print(*describe(arguments.root, tree, arguments.edges), sep="\n")


if __name__ == "__main__":
    main()
