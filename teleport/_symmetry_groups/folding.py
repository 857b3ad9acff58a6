"""Weights that multiply units, as those of norms do, folded into the linear maps beside them.

``W (w * n)`` is ``(W diag(w)) (1 * n)``: with the weights at one, a rotation passes through the norm. Which weights may
be folded is read off the quiver: a weight ``w`` whose factors are its own, with the inverses in other weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._engine.held_tensors import HeldTensors, move_tensors
from teleport._quiver.quiver import Freedom, Quiver
from teleport._quiver.rows import in_rows

ZERO = "an element is zero or not finite"


@dataclass(frozen=True)
class Folding:
    """Sets weights that multiply units to given values, and moves the quotients into the weights beside them.

    Attributes:
        quiver: of the network.
        before: the weights by name, as they were.
        after: as they will be: ones.
    """

    quiver: Quiver
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]

    def inverse(self) -> Folding:
        """The weights as they were, and the others divided again."""
        return Folding(self.quiver, self.after, self.before)

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model's parameters in place.

        Args:
            model: the traced model, or one of the same structure.

        Returns:
            ``model``, which computes the same function.

        Raises:
            ValueError: a parameter is missing, has another shape, or has a zero; then nothing is changed.
        """
        move_tensors(model, self.act)
        return model

    @torch.no_grad()
    def act(self, held: HeldTensors) -> None:
        """As :meth:`apply`, on the tensors of a model as this process holds them."""
        weights = {}
        for name, value in self.after.items():
            if held.shape(name) != list(value.shape):
                raise ValueError(f"the folding is of another model: this one has no parameter {name!r} of its shape")
            weights[name] = held.value(name)
            if not _usable(weights[name]):
                raise ValueError(f"{name!r} cannot be folded: {ZERO}")
        tau = self._tau(weights)
        for name, scaled in in_rows(held.group, self.quiver.scaled).items():
            factors = scaled.factors(tau)
            if name not in self.after and bool((factors != 1).any()):
                held.own[name].copy_(held.own[name].double() * factors)
        for name, value in self.after.items():
            held.write(name, value)

    @property
    def tau(self) -> Tensor:
        """The factors of the quiver's classes, where the weights are as ``before``."""
        return self._tau(self.before)

    def _tau(self, weights: Mapping[str, Tensor]) -> Tensor:
        tau = torch.ones(len(self.quiver.freedom), dtype=torch.float64)
        for name, value in self.after.items():
            classes, power = own_classes(self.quiver, name)
            tau[classes] = (value.double() / weights[name].detach().double()).cpu() ** power
        return tau


def folding_of(quiver: Quiver, held: HeldTensors, names: Iterable[str]) -> Folding:
    """The folding of some weights at the values that they have."""
    before = {name: held.value(name).clone() for name in names}
    return Folding(quiver, before, {name: torch.ones_like(value) for name, value in before.items()})


def foldable_weights(
    quiver: Quiver, parameters: Mapping[str, nn.Parameter], held: HeldTensors
) -> tuple[list[str], dict[str, str]]:
    """The names of the weights that may be folded, and of vectors that may not, with the reason.

    Args:
        quiver: of the network.
        parameters: of the network by name, as it was traced.
        held: their values.
    """
    owner: dict[int, str] = {}
    found, refused = [], {}
    for name, parameter in parameters.items():
        if parameter.dim() != 1 or name not in quiver.kinds:
            continue
        classes, _ = own_classes(quiver, name)
        if len(classes) != len(parameter) or not parameter.requires_grad:
            refused[name] = quiver.reasons.get(name, "its factors are not its own")
            continue
        value = held.value(name)
        if not _usable(value):
            refused[name] = ZERO
        elif bool((quiver.freedom[classes] == Freedom.POSITIVE).any()) and bool((value <= 0).any()):
            refused[name] = "an element is negative, and positive factors alone pass through what reads it"
        elif other := next((owner[each] for each in classes.tolist() if each in owner), None):
            refused[name] = f"its factors are those of {other!r}, too"
        else:
            found.append(name)
            owner.update(dict.fromkeys(classes.tolist(), name))
    return found, refused


def own_classes(quiver: Quiver, name: str) -> tuple[Tensor, int]:
    """The classes of a vector's elements, and the power of their factors by which it is multiplied; of none if the
    factors act on both sides, or are those of others."""
    scaled = quiver.scaled.get(name)
    none = torch.zeros(0, dtype=torch.int64)
    if scaled is None:
        return none, 1
    output, read = scaled.output_class.flatten(), scaled.input_class.flatten()
    classes, power = (output, 1) if not bool(read.any()) else (read, -1)
    other = read if power == 1 else output
    if bool(other.any()) or len(set(classes.tolist())) != scaled.parameter.numel() or bool((classes == 0).any()):
        return none, 1
    if bool((quiver.inverse[classes] >= 0).any()):
        return none, 1
    return classes, power


def _usable(weight: Tensor) -> bool:
    return bool(weight.isfinite().all()) and not bool((weight == 0).any())
