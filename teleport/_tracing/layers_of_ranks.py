"""The layers that the ranks of a group have traced, each on batches of its own, as the layers of one process."""

from __future__ import annotations

from collections.abc import Hashable

from teleport._processes.group import Group
from teleport._spaces.joined import joined
from teleport._spaces.representation import Representation
from teleport._tracing.layer_tracer import TracedLayers

DIFFERENT_USE = "the batches of the processes use it in different ways"


def layers_of_ranks(group: Group, traced: TracedLayers) -> TracedLayers:
    """The traced layers with the inputs of all ranks. A parameter that stays on one rank stays on all.

    Args:
        group: of the processes.
        traced: of this one.
    """
    if group.alone:
        return traced
    forms = _forms(traced)
    everyone = group.gathered((forms, traced.pinned))
    pinned = {name: reason for _, reasons in everyone for name, reason in reasons.items()}
    names = []
    for name, form in everyone[0][0].items():
        if any(name in reasons for _, reasons in everyone):
            continue
        if all(others.get(name) == form for others, _ in everyone):
            names.append(name)
        else:
            pinned[name] = DIFFERENT_USE
    for others, _ in everyone:
        pinned |= {name: DIFFERENT_USE for name in others if name not in names and name not in pinned}
    own: dict[int, Representation] = {}  # of each id, in an order that is the same on all ranks
    for name in names:
        if (representation := traced.representations[name]) is not None:
            own.setdefault(id(representation), representation)
    found = dict(zip(own, joined(group, list(own.values())), strict=True))
    return TracedLayers(
        {name: traced.layers[name] for name in names},
        {name: found.get(id(traced.representations[name])) for name in names},
        pinned,
    )


def _forms(traced: TracedLayers) -> dict[str, Hashable]:
    """By the name of a layer, what must be the same on all ranks: its form, and the first layer with its inputs."""
    first: dict[int, str] = {}
    forms: dict[str, Hashable] = {}
    for name, layer in traced.layers.items():
        representation = traced.representations[name]
        shared = None if representation is None else first.setdefault(id(representation), name)
        precision = None if representation is None else str(representation.dtype)
        forms[name] = (layer.kind, layer.groups, layer.dimension, layer.bias is None, shared, precision)
    return forms
