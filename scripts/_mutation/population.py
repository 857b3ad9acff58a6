"""Where ``teleport/`` can be mutated, and a sample of mutants.

A place is a span of source that at least one operator changes. A sample draws places uniformly without replacement,
and one of the mutants of each uniformly.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from scripts._mutation.operators import operators

SIGNATURE_MARKS = ("parameters", "lambdef", "param")


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        file: relative to the checkout.
        line: of the place.
        lines: the line of the place, and that where its statement begins.
        operator: its name.
        occurrence: which of the operator's positions in the file.
        code: the whole mutated source.
        diff: against the source, without context.
    """

    file: str
    line: int
    lines: tuple[int, ...]
    operator: str
    occurrence: int
    code: str
    diff: str

    @property
    def key(self) -> str:
        """What names the mutant in the results."""
        return f"{self.file}:{self.line}:{self.operator}:{self.occurrence}"


def places(source: str) -> dict[tuple[Any, Any], list[tuple[str, int]]]:
    """Span -> the operators that change it, each with the number of its occurrence in the file."""
    tree = get_ast(source)
    nodes, excluded = list(ast_nodes(tree)), set(_excluded(tree))
    found: dict[tuple[Any, Any], list[tuple[str, int]]] = defaultdict(list)
    for name, operator in operators().items():
        occurrence = 0
        for node in nodes:
            for span in operator.mutation_positions(node):
                if not any(begin <= span[0] and span[1] <= end for begin, end in excluded):
                    found[tuple(span)].append((name, occurrence))
                occurrence += 1
    return dict(sorted(found.items()))


def _excluded(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Spans that are no behaviour: annotations, aliases of types, exported names, words of messages, assertions.

    Words of messages are expressions in f-strings. Assertions are ``assert`` and ``zip(strict=True)``, which fail only
    where another fault is, and ``frozen=True`` of a data class, which forbids what no code does.
    """
    for node in ast_nodes(tree):
        if _is_left_out(node):
            yield node.start_pos, node.end_pos
        elif node.type == "annassign":
            value = node.children[3:] if node.children[1].get_code().strip() != "TypeAlias" else []
            yield node.start_pos, value[0].start_pos if value else node.end_pos
        elif node.type in ("param", "funcdef") and node.annotation is not None:
            yield node.annotation.start_pos, node.annotation.end_pos
        elif node.type == "atom_expr" and node.children[0].get_code().strip() == "cast":
            yield node.start_pos, node.children[1].children[1].children[0].end_pos


def _is_left_out(node: Any) -> bool:
    match node.type:
        case "fstring" | "import_from" | "assert_stmt" | "strings":
            return True
        case "operator":  # the marks of a signature: ``def f(a, /, b, *, c)``
            return node.value in "*/" and node.parent.type in SIGNATURE_MARKS
        case "argument":
            return node.get_code().strip() in ("strict=True", "frozen=True")
        case "expr_stmt":
            return _is_declaration(node)
        case "if_stmt":
            return node.children[1].get_code().strip() == "TYPE_CHECKING"
    return False


def _is_declaration(node: Any) -> bool:
    """Whether an assignment at the top of a module exports names or names a type: ``Rule = Callable[..., A]``."""
    target = node.children[0].get_code().strip()
    value = node.children[-1]
    top = node.parent.parent is not None and node.parent.parent.type == "file_input"
    alias = target[:1].isupper() and not target.isupper() and value.type in ("expr", "atom_expr", "arith_expr")
    return top and (target == "__all__" or (alias and "(" not in value.get_code()))


def sample(root: Path, only: str, size: int, seed: int) -> tuple[list[Mutant], int]:
    """Mutants of the files of ``root/teleport`` whose path begins with ``only``, and the number of places in them.

    The order is that of hashes, so a shorter sample of a seed begins a longer one, and a change of one file leaves the
    places in the others as they are.
    """
    files = {str(file.relative_to(root)): file for file in sorted((root / "teleport").rglob("*.py"))}
    sources = {name: file.read_text() for name, file in files.items() if name.startswith(only)}
    population = [(file, span, changes) for file, source in sources.items() for span, changes in places(source).items()]
    population.sort(key=lambda place: hashlib.sha256(f"{seed} {place[:2]}".encode()).digest())
    chosen: list[Mutant] = []
    for file, span, changes in population:
        if len(chosen) == size:
            break
        generator = random.Random(f"{seed} {file} {span}")
        mutants = (
            mutant(file, sources[file], span[0][0], *change) for change in generator.sample(changes, len(changes))
        )
        chosen += next(([made] for made in mutants if made is not None), [])
    return chosen, len(population)


def mutant(file: str, source: str, line: int, operator: str, occurrence: int) -> Mutant | None:
    """The mutant, or None if the change is no Python or no change."""
    code = mutate_code(source, operators()[operator], occurrence)
    try:
        if code is None or ast.dump(ast.parse(code)) == ast.dump(ast.parse(source)):
            return None
    except SyntaxError:
        return None
    changed = difflib.unified_diff(source.splitlines(), code.splitlines(), lineterm="", n=0)
    diff = "\n".join(text for text in changed if not text.startswith(("---", "+++", "@@")))
    return Mutant(file, line, _lines(source, line), operator, occurrence, code, diff)


def _lines(source: str, line: int) -> tuple[int, ...]:
    """The line, and the first line of the innermost statement that holds it."""
    begins = [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return tuple(dict.fromkeys([line, *([max(begins)] if begins else [])]))
