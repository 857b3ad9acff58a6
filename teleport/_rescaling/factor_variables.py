"""The free positive factors of a network's hidden channels, as variables of the closed-form gradient norm.

Input: the loss of one or more batches. Output: :class:`FactorVariables`, the map from variables to the factors ``tau``.
The network's quiver (``_quiver/find_quiver.py``) says which channels share a factor and which have ``tau = 1``. Two
further restrictions keep the closed form simple: channels have ``tau = 1`` if one weight maps them to each other, and
the variables are split into blocks of which each can be minimised at once (Armenta et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from teleport._quiver.find_quiver import trace_quiver
from teleport._quiver.quiver import Freedom, Quiver, Scaled

TIED = "its channels are both the inputs and the outputs of one weight"


@dataclass
class FactorVariables:
    """The classes of a model's channels as functions of the variables ``x``: ``log tau = sign * x[variable]``.

    A class is a set of channels that have the same factor ``tau``.

    Attributes:
        scaled: name -> parameter that at least one free class scales.
        groups: name of a weight -> the classes of its output channels, ``[channels]``.
        kinds: name of a weight -> the kind of layer that it belongs to.
        variable: ``[classes]``, the variable of each class.
        sign: ``[classes]``, 1, or -1 (a key, which has the inverse factor of its query), or 0 if ``tau = 1``.
        blocks: the variables of one group each; no two variables of a block share a term of the gradient norm.
        reasons: name -> why all or some channels of the group have ``tau = 1``, or why another parameter is not scaled.
    """

    scaled: dict[str, Scaled]
    groups: dict[str, Tensor]
    kinds: dict[str, str]
    variable: Tensor
    sign: Tensor
    blocks: list[Tensor]
    reasons: dict[str, str]

    def log_tau(self, x: Tensor) -> Tensor:
        """``log tau [classes]`` at the variables ``x [variables]``."""
        padded = torch.cat([x, x.new_zeros(1)])  # so that the index is valid if there are no variables
        return self.sign * padded[self.variable]

    @property
    def count(self) -> int:
        """The number of variables."""
        return sum(len(block) for block in self.blocks)


def find_factor_variables(
    evaluate: Callable[[Any], Tensor],
    batches: Iterable[Any],
    named_parameters: Mapping[str, nn.Parameter],
    device: torch.device | None = None,
) -> FactorVariables:
    """Trace the loss of each batch and find the channels that may be scaled.

    Args:
        evaluate: computes the loss of a batch.
        batches: at least one. A factor is free only if it is free in the traces of all batches.
        named_parameters: of the model. Parameters that require no gradient are not scaled, so the channels that would
            scale them have ``tau = 1``.
        device: of the variables; by default that of the first parameter.
    """
    with torch.enable_grad():
        runs = (partial(evaluate, batch) for batch in batches)
        quiver = trace_quiver(runs, named_parameters, in_place=True, frozen_stay=True, output="its output is the loss")
    return _VariableNumbering(quiver).result(device or next(iter(named_parameters.values())).device)


class _VariableNumbering:
    """Numbers the free classes of a quiver, group by group."""

    def __init__(self, quiver: Quiver) -> None:
        self.quiver = quiver
        self.reasons = {name: why for name, why in quiver.reasons.items() if _pinned(quiver.channel_classes.get(name))}
        self.free = quiver.freedom != Freedom.PINNED
        self.first_group = torch.full(
            (len(quiver.freedom),), -1
        )  # [classes], the first group with the class or its inverse
        for number, classes in reversed(list(enumerate(quiver.channel_classes.values()))):
            either = torch.cat([classes, quiver.inverse[classes]])
            self.first_group[either[either > 0]] = number

    def result(self, device: torch.device) -> FactorVariables:
        """The variables; classes without a group and classes that are tied to each other have ``tau = 1``."""
        quiver = self.quiver
        self._pin_ungrouped()
        self._pin_tied()
        variable = torch.zeros(len(self.free), dtype=torch.int64)
        sign = torch.zeros(len(self.free), dtype=torch.float64)
        blocks, count = [], 0
        for number in range(len(quiver.channel_classes)):
            classes = (self.free & (self.first_group == number)).nonzero().flatten()
            inverse = quiver.inverse[classes]
            leading = (inverse < 0) | (classes < inverse)
            classes, inverse = classes[leading], inverse[leading]
            variable[classes], sign[classes] = torch.arange(count, count + len(classes)), 1.0
            paired = inverse >= 0
            variable[inverse[paired]], sign[inverse[paired]] = variable[classes[paired]], -1.0
            if len(classes):
                blocks.append(torch.arange(count, count + len(classes), device=device))
            count += len(classes)
        scaled = {name: each for name, each in quiver.scaled.items() if self._any_free(each)}
        return FactorVariables(
            scaled,
            {name: classes.to(device) for name, classes in quiver.channel_classes.items()},
            quiver.kinds,
            variable.to(device),
            sign.to(device),
            blocks,
            self.reasons,
        )

    def _pin_ungrouped(self) -> None:
        """Pin classes that no weight has as output channels."""
        self.free &= self.first_group >= 0

    def _pin_tied(self) -> None:
        """Pin groups that a weight maps to themselves: its factors would depend on two variables of one block."""
        names = list(self.quiver.channel_classes)
        for scaled in self.quiver.scaled.values():
            output, input_ = (self._groups_of(side.cpu()) for side in (scaled.output_class, scaled.input_class))
            for number in output & input_:
                self.free &= self.first_group != number
                for name, classes in self.quiver.channel_classes.items():
                    if name == names[number] or bool((self.first_group[classes] == number).any()):
                        self.reasons.setdefault(name, TIED)

    def _groups_of(self, classes: Tensor) -> set[int]:
        """The groups of the free ones among ``classes``."""
        unique: Tensor = torch.unique(classes)
        return set(self.first_group[unique[self.free[unique]]].tolist())

    def _any_free(self, scaled: Scaled) -> bool:
        return any(bool(self.free[side.cpu()].any()) for side in (scaled.output_class, scaled.input_class))


def _pinned(classes: Tensor | None) -> bool:
    """Whether a parameter's reason is one for ``tau = 1``: it has no channel classes, or some are class 0."""
    return classes is None or bool((classes == 0).any())
