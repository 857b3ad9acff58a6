"""A network as a quiver: which elements of which parameters carry which change of basis (Armenta et al.).

Every hidden channel of a network is a vertex with a factor tau, its change of basis; its factor is a *scale variable*.
Scale variables that must be equal form one *class*; class 0 is pinned to 1 (inputs, outputs, channels that must stay).
``find_quiver.py`` finds the quiver of a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn

from teleport._tracing.value_reads import ValueRead


class Freedom(IntEnum):
    """Which factors a class may carry."""

    PINNED = 0
    """1 alone."""

    POSITIVE = 1
    """Any positive number: what the class passes through is positively homogeneous, as ReLU is."""

    NONZERO = 2
    """Any number but 0: what it passes through is linear, or is called in its teleported form."""


@dataclass
class Scaled:
    """A parameter whose elements are multiplied by ``tau[output_class] / tau[input_class]``.

    Attributes:
        parameter: the tensor that is changed in place.
        output_class: int64 classes of the output channels, in a shape that broadcasts to the parameter's.
        input_class: the same of the input channels. A linear layer has ``[out, 1]`` and ``[1, in]``, a grouped
            convolution ``[out, 1, 1, 1]`` and ``[out, in / groups, 1, 1]``, an embedding ``[1, dim]`` and ``[1, 1]``.
    """

    parameter: nn.Parameter
    output_class: Tensor
    input_class: Tensor

    def factors(self, tau: Tensor) -> Tensor:
        """What the parameter is multiplied by, ``tau [classes]``; in a shape that broadcasts to the parameter's."""
        tau = tau.to(self.output_class.device)
        return tau[self.output_class] / tau[self.input_class]


@dataclass
class Site:
    """One call of a function f that is computed as ``tau f(x / tau)`` if its factor is not 1.

    Attributes:
        call: how many calls of ``function`` came before it in an evaluation of the model.
        function: the torch function, as it was called.
        classes: int64, of a shape that broadcasts to the call's first argument and to its result.
        homogeneous: whether positive factors pass through f unchanged, so that only negative ones need the form.
    """

    call: int
    function: Callable[..., Any]
    classes: Tensor
    homogeneous: bool


@dataclass(eq=False)
class Quiver:
    """The changes of basis of a model.

    Attributes:
        freedom: ``[classes]`` of :class:`Freedom`; that of class 0 is ``PINNED``.
        inverse: ``[classes]``, the class that carries the inverse factor (a key's to its query's), or -1.
        scaled: parameter's name -> how it changes; those that never do are left out.
        channel_classes: producing weight's name -> the class of each channel that it makes, ``[channels]``.
        kinds: producing weight's name -> what it is used as, ``"linear"``, ``"conv2d"``, ``"batch norm"``.
        sites: calls that need the teleported form at some factors of their classes. Empty if the quiver was found
            for changes in place.
        reasons: name -> why its channels, or some of them, carry 1 or only positive factors, or why it stays.
        calls: how often an evaluation calls each activation, by its name in torch, for the teleported form to check.
        value_reads: where the model's code reads values, on which its branches may depend.
    """

    freedom: Tensor
    inverse: Tensor
    scaled: dict[str, Scaled]
    channel_classes: dict[str, Tensor]
    kinds: dict[str, str]
    sites: list[Site]
    reasons: dict[str, str]
    calls: dict[str, int] = field(default_factory=dict)
    value_reads: list[ValueRead] = field(default_factory=list)

    def complete(self, tau: Tensor) -> Tensor:
        """``tau [classes]`` with 1 where it must be and inverses where one factor decides another's."""
        whole = torch.where(self.freedom == Freedom.PINNED, torch.ones_like(tau), tau)
        first = (self.inverse >= 0) & (self.inverse < torch.arange(len(tau), device=tau.device))
        return torch.where(first, 1 / whole[self.inverse.clamp(min=0)], whole)
