"""Which hidden channels a positive factor may be moved through, as variables of the gradient norm's closed form.

The network's quiver (``_quiver/find_quiver.py``) says which channels share a factor and which must stay. Beyond that,
channels stay that one weight leads to each other, and those are grouped that can be chosen together.
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

TIED = "its channels are tied to each other"


@dataclass
class FactorVariables:
    """The classes of a model's channels, and the variables they are functions of: ``log tau = sign * x[variable]``.

    Attributes:
        scaled: parameters, by name, that any free class scales.
        groups: a weight's name -> the classes of its channels.
        kinds: a weight's name -> what it is used as.
        variable: [classes], the variable of each class; ``sign``: [classes], 1, -1 (a key, which undoes its query), or
            0 where the class stays.
        blocks: variables a group, none of which share a term of the gradient norm.
        reasons: why a group's channels, or some of them, stay; and why other parameters do.
    """

    scaled: dict[str, Scaled]
    groups: dict[str, Tensor]
    kinds: dict[str, str]
    variable: Tensor
    sign: Tensor
    blocks: list[Tensor]
    reasons: dict[str, str]

    def log_tau(self, x: Tensor) -> Tensor:
        """The logarithm of every class's factor, at the variables ``x``."""
        padded = torch.cat([x, x.new_zeros(1)])  # where there is no variable at all
        return self.sign * padded[self.variable]

    @property
    def variables(self) -> int:
        """How many there are."""
        return sum(len(block) for block in self.blocks)


def find_factor_variables(
    evaluate: Callable[[Any], Tensor], batches: Iterable[Any], named_parameters: Mapping[str, nn.Parameter]
) -> FactorVariables:
    """Watch the loss of each batch and tell which channels may be scaled.

    Args:
        evaluate: computes the loss of a batch.
        batches: at least one; what they show differently is shared or stays.
        named_parameters: of the model; those that require no gradient stay, and with them the channels they scale with.
    """
    with torch.enable_grad():
        runs = (partial(evaluate, batch) for batch in batches)
        quiver = trace_quiver(runs, named_parameters, in_place=True, frozen_stay=True, output="its output is the loss")
    return _Variables(quiver).channels(next(iter(named_parameters.values())).device)


class _Variables:
    """Numbers the free classes of a quiver, group by group."""

    def __init__(self, quiver: Quiver) -> None:
        self.quiver = quiver
        self.reasons = {name: why for name, why in quiver.reasons.items() if _stays(quiver.channel_classes.get(name))}
        self.free = quiver.freedom != Freedom.PINNED
        self.first_group = torch.full((len(quiver.freedom),), -1)  # of a class, or its inverse: the first to make it
        for number, units in reversed(list(enumerate(quiver.channel_classes.values()))):
            either = torch.cat([units, quiver.inverse[units]])
            self.first_group[either[either > 0]] = number

    def channels(self, device: torch.device) -> FactorVariables:
        """The variables, with classes pinned that are tied."""
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
        moving = {name: each for name, each in quiver.scaled.items() if self._moves(each)}
        return FactorVariables(
            moving,
            {name: units.to(device) for name, units in quiver.channel_classes.items()},
            quiver.kinds,
            variable.to(device),
            sign.to(device),
            blocks,
            self.reasons,
        )

    def _pin_ungrouped(self) -> None:
        """Parameters' elements that no weight makes, and that nothing shares a factor with, stay."""
        self.free &= self.first_group >= 0

    def _pin_tied(self) -> None:
        """A weight from a group to itself would tie the group's own factors to each other."""
        names = list(self.quiver.channel_classes)
        for scaled in self.quiver.scaled.values():
            made, read = (self._groups_of(side.cpu()) for side in (scaled.output_class, scaled.input_class))
            for number in made & read:
                self.free &= self.first_group != number
                for name, units in self.quiver.channel_classes.items():
                    if name == names[number] or bool((self.first_group[units] == number).any()):
                        self.reasons.setdefault(name, TIED)

    def _groups_of(self, classes: Tensor) -> set[int]:
        """The groups that the free ones of some classes are numbered in."""
        unique: Tensor = torch.unique(classes)
        return set(self.first_group[unique[self.free[unique]]].tolist())

    def _moves(self, scaled: Scaled) -> bool:
        return any(bool(self.free[side.cpu()].any()) for side in (scaled.output_class, scaled.input_class))


def _stays(classes: Tensor | None) -> bool:
    """Whether a reason is one for staying: of a parameter without channels, or of channels that carry 1."""
    return classes is None or bool((classes == 0).any())
