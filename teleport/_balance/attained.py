"""Which factors have a minimum: those of channels that something enters and that something leaves.

A sum of terms ``mass exp(2 (y[input] - y[output]))`` is a graph with an edge from the input class to the output class
of each term; inputs, outputs and pinned channels are its ground, where ``y = 0``. The sum attains its minimum if every
class lies on a path from ground to ground. If none leads to a channel, or none away, as where its weights are zero, the
sum falls for ever as its factor grows or shrinks; such a channel keeps the factor 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teleport._balance.log_sum import ClassVariables, LogSum


def pin_unattained(function: LogSum) -> None:
    """Give the factor 1 to the classes in whose factor the sum has no minimum.

    First to those that no term enters or none leaves, as others may be bounded then.
    """
    variables = function.variables
    while True:
        reached = _reached(function, variables)
        stuck = (variables.sign != 0) & ~(reached[: len(variables.sign)] & reached[variables.mirror])
        if not bool(stuck.any()):
            return
        alone = stuck & ~_both_ways(function, variables)
        variables.pin(alone if bool(alone.any()) else stuck)


def _reached(function: LogSum, variables: ClassVariables) -> Tensor:
    """Whether a path leads from ground to a class, ``[classes]``, and back from it, in the places of mirrors.

    The mirror of a class has the inverse factor: a path to it is a path away from the class.
    """
    mirror = variables.mirror
    reached = torch.zeros(2 * len(mirror), dtype=torch.bool, device=mirror.device)
    ground = variables.sign == 0
    reached[: len(mirror)][ground] = reached[mirror[ground]] = True
    while True:
        before = int(reached.sum())
        for term in [*function.terms, *reversed(function.terms)]:
            rows, columns = mirror[term.rows], mirror[term.columns]
            entered = (term.square @ reached[term.columns].double()[:, :, None])[:, :, 0] > 0
            left = (reached[rows].double()[:, None, :] @ term.square)[:, 0] > 0
            reached[term.rows[entered]] = True
            reached[columns[left]] = True
        if function.group.holds_parts:
            reached = function.group.total(reached.double()) > 0
        if int(reached.sum()) == before:
            return reached


def _both_ways(function: LogSum, variables: ClassVariables) -> Tensor:
    """``[classes]``: whether terms rise with its factor and others fall."""
    rising, falling = (torch.zeros(variables.count + 1, dtype=torch.bool, device=variables.sign.device) for _ in "rf")
    for term in function.terms:
        for classes, mass, up in (
            (term.rows, term.square.sum(2), False),
            (term.columns, term.square.sum(1), True),
        ):
            present = classes[mass > 0]
            sign = variables.sign[present]
            for wanted in (1, -1):
                (rising if (wanted > 0) == up else falling)[variables.variable[present[sign == wanted]]] = True
    if function.group.holds_parts:
        rising, falling = function.group.total(torch.stack([rising, falling]).double()) > 0
    return (rising & falling)[variables.variable]
