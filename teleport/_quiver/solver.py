"""The quiver that follows from how the parameters of a network are used.

A function of its inputs: what was collected is read and not changed, and the same input gives the same quiver.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from teleport._quiver.parameter_scales import UNSEEN, ParameterScales, ParameterUse
from teleport._quiver.quiver import Quiver, Scaled, Site
from teleport._quiver.scale_indices import compact, compacts, constant
from teleport._quiver.scale_variables import Classes, ScaleVariables, constrained, solve


def quiver_of(
    scales: ParameterScales,
    sites: Sequence[Site],
    calls: Mapping[str, int],
    pins: Sequence[tuple[Tensor, str]] = (),
) -> Quiver:
    """Solve for the classes of all scale variables, and say how each parameter scales with them.

    Args:
        scales: how the parameters are used, and the constraints between scale variables.
        sites: calls of activations, whose ``classes`` are scale variables here.
        calls: the number of calls of each activation per evaluation, by its name in torch.
        pins: further scale variables whose factor is 1, with the reason.
    """
    variables = scales.variables.copy()
    for scale_index, reason in pins:
        variables.pin(scale_index, reason)
    uses = _with_elements(scales, variables, sites)
    for name, reason in scales.pinned.items():
        use = uses.get(name)
        for side in () if use is None else _sides(use):
            variables.pin(side, f"{name} stays: {reason}")
    classes = solve(variables.constraints)
    scaled = {}
    for name in (name for name in scales.parameters if name in uses):
        parameter = scales.parameters[name]
        device = torch.device("cpu") if parameter.is_meta else parameter.device  # meta: stands for shards
        sides = (_short(classes.of[side]).to(device) for side in _sides(uses[name]))
        scaled[name] = Scaled(parameter, *sides)
    scaled = {name: each for name, each in scaled.items() if _moves(each)}
    made = {name: torch.cat([each.flatten() for each in scales.made[name]]) for name in scales.made}
    solved = [dataclasses.replace(site, classes=_short(classes.of[site.classes])) for site in sites]
    return Quiver(
        freedom=classes.freedom,
        inverse=classes.inverse,
        scaled=scaled,
        channel_classes={name: classes.of[each] for name, each in made.items()},
        kinds=dict(scales.kinds),
        sites=[site for site in solved if bool(site.classes.any())],
        reasons=_reasons(scales, classes, made, scaled),
        calls=dict(calls),
    )


def _with_elements(
    scales: ParameterScales, variables: ScaleVariables, sites: Sequence[Site]
) -> dict[str, ParameterUse]:
    """All uses, those element by element included; constraints between both are added to ``variables``.

    Elements that were not used stay.
    """
    uses = dict(scales.uses)
    named = constrained(variables.constraints)
    for side in [side for use in uses.values() for side in _sides(use)] + [site.classes for site in sites]:
        named[compact(side).clamp(min=0)] = True
    for name, elements in scales.element_variables.items():
        use = uses.pop(name, None)
        output_class = torch.where(named[elements], elements, 0)
        input_class = constant(elements.shape)
        if use is not None:
            reason = f"{name} is used in different ways"
            seen = use.output_class.expand(elements.shape) != UNSEEN
            as_both = seen & named[elements]
            variables.join(elements[as_both], use.output_class.expand(elements.shape)[as_both], reason)
            variables.pin(use.input_class.expand(elements.shape)[as_both], reason)
            output_class = torch.where(seen, use.output_class, output_class)
            input_class = torch.where(seen, use.input_class, 0)
        uses[name] = ParameterUse(output_class, input_class)
    return uses


def _reasons(
    scales: ParameterScales, classes: Classes, made: Mapping[str, Tensor], scaled: Mapping[str, Scaled]
) -> dict[str, str]:
    """Why channels carry 1 (first of all) or positive factors only, and why other parameters stay."""
    reasons = {}
    for name, variables in made.items():
        noted = classes.reason[variables]
        noted = noted[noted >= 0]
        if len(noted):
            pinned = classes.of[variables] == 0
            first = classes.reason[variables][pinned][0] if bool(pinned.any()) else noted[0]
            reasons[name] = classes.reasons[int(first)]
    for name in scales.parameters:
        if name in scales.pinned and name not in reasons and name not in scaled:
            reasons[name] = scales.pinned[name]
    return reasons


def _sides(use: ParameterUse) -> tuple[Tensor, Tensor]:
    return use.output_class, use.input_class


def _moves(scaled: Scaled) -> bool:
    """Whether any factor can differ from 1."""
    output_class, input_class = compacts(scaled.output_class, scaled.input_class)
    return bool((output_class != input_class).any())


def _short(classes: Tensor) -> Tensor:
    """With one element along each axis that the classes do not vary along."""
    for axis in range(classes.dim()):
        first = classes.narrow(axis, 0, 1)
        if classes.shape[axis] > 1 and bool((classes == first).all()):
            classes = first
    return classes.contiguous()
