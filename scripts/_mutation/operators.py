"""The mutation operators: cosmic-ray's, and three for faults of kinds that it does not make."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import parso
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

ARITHMETIC = {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}
BITS = {"BitOr", "BitAnd", "BitXor"}


class ReplaceMembership(Operator):
    """``in`` for ``not in`` and the reverse."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Where a comparison asks for membership."""
        if node.type == "comparison":
            yield from [(node.children[i].start_pos, node.children[i].end_pos) for i in self._found(node)]

    def mutate(self, node: Any, index: int) -> Any:
        """The comparison with the other word."""
        i = self._found(node)[index]
        other = " in" if node.children[i].get_code().split() == ["not", "in"] else " not in"
        node.children[i] = parso.parse(other)
        return node

    @staticmethod
    def _found(node: Any) -> list[int]:
        return [
            i for i in range(1, len(node.children), 2) if node.children[i].get_code().split() in (["in"], ["not", "in"])
        ]

    @classmethod
    def examples(cls) -> tuple[()]:
        """None: cosmic-ray's own tests use them."""
        return ()


class NegateComprehensionCondition(ReplaceMembership):
    """``if not (condition)`` in a comprehension."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """The conditions of comprehensions."""
        if node.type == "comp_if":
            yield node.children[1].start_pos, node.children[1].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """The condition, negated."""
        node.children[1] = parso.parse(f" not ({node.children[1].get_code().strip()})")
        return node


class DropKeywordArgument(ReplaceMembership):
    """A call without one of its keyword arguments."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """The keyword arguments of a call."""
        if node.type in ("arglist", "trailer"):
            yield from [(node.children[i].start_pos, node.children[i].end_pos) for i in self._found(node)]

    def mutate(self, node: Any, index: int) -> Any:
        """The call without the argument and its comma."""
        i = self._found(node)[index]
        comma = i + 1 < len(node.children) and node.children[i + 1].get_code().strip() == ","
        del node.children[i : i + 1 + comma]
        return node

    @staticmethod
    def _found(node: Any) -> list[int]:
        return [
            i
            for i, child in enumerate(node.children)
            if child.type == "argument" and child.children[1].get_code().strip() == "="
        ]


def _is_used(name: str) -> bool:
    """Whether an operator of cosmic-ray's makes faults that are worth a test.

    Left out: an arithmetic operator for one of bits (a type error wherever it runs, so killed by any test), ``is`` for
    ``==`` (the same on interned numbers, words and types), and the two operators that need the name of a variable.
    """
    family, _, change = name.partition("_")
    if family == "ReplaceBinaryOperator":
        return any(set(change.split("_")) <= kind for kind in (ARITHMETIC, BITS))
    if family == "ReplaceComparisonOperator":
        old, _, new = change.partition("_")
        return old in ("Is", "IsNot") or new not in ("Is", "IsNot")
    return family not in ("VariableReplacer", "VariableInserter")


@cache
def operators() -> dict[str, Operator]:
    """Every operator by its name."""
    known = OperatorProvider()
    made = {name: known[name]() for name in known if _is_used(name)}
    return made | {
        kind.__name__: kind() for kind in (ReplaceMembership, NegateComprehensionCondition, DropKeywordArgument)
    }
