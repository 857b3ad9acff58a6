"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from experiments.errors import one_of

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.1),  # the slope in the comparisons of symmetry teleport
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}


def activation(name: str) -> nn.Module:
    """A new activation module.

    Raises:
        UserError: the name is not in ``ACTIVATIONS``.
    """
    if name not in ACTIVATIONS:
        raise one_of("model.activation", name, list(ACTIVATIONS))
    return ACTIVATIONS[name]()


def replace_relus(model: nn.Module, name: str) -> None:
    """Replace every ``nn.ReLU`` below ``model`` by a new activation ``name``, in place.

    ``relu`` is replaced as well: torchvision's ReLUs overwrite their input, which a hook may still hold.

    Raises:
        UserError: the name is not in ``ACTIVATIONS``.
    """
    for module in model.modules():
        for child, old in module.named_children():
            if isinstance(old, nn.ReLU):
                setattr(module, child, activation(name))
