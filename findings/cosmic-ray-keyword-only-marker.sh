#!/usr/bin/env bash
# cosmic-ray 8.7.0 (parso 0.8.7): the mutation operators of binary operators change the bare "*" of a signature.
#
# Expected: ReplaceBinaryOperator_Mul_Div replaces multiplications, so a function without one has no mutation place.
# Seen: the marker of keyword-only parameters counts as a multiplication, and "def f(a, *, b)" becomes
# "def f(a, /, b)". That program is valid and behaves alike for callers that pass b by keyword, so such mutants survive
# any suite and lower the score of code with keyword-only parameters. The last line of the output is "as described".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check cosmic-ray==8.7.0 parso==0.8.7
"$work/venv/bin/python" - <<'PYTHON'
import parso
from cosmic_ray.operators.binary_operator_replacement import ReplaceBinaryOperator_Mul_Div


def nodes(node):
    yield node
    for child in getattr(node, "children", []):
        yield from nodes(child)


operator, changed = ReplaceBinaryOperator_Mul_Div(), []
tree = parso.parse("def f(a, *, b):\n    return a + b\n")
for node in list(nodes(tree)):
    for index, _ in enumerate(operator.mutation_positions(node)):
        operator.mutate(node, index)
        changed.append(tree.get_code())
print(changed)
assert len(changed) == 1, f"places for a multiplication in a function without one: {len(changed)}"
assert changed[0].startswith("def f(a, /, b):"), changed[0]
scope = {}
exec(changed[0], scope)
assert scope["f"](1, b=2) == 3
print("as described")
PYTHON
