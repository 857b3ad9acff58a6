"""How far the factors of channels moved the weights that make them, for reports.

Inputs: the deviations ``tau - 1`` per class, the classes of each weight's channels, and the parameters that are
multiplied. A factor does not move a weight that is zero; then what else carries the factor is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import torch
from torch import Tensor

from teleport._processes.group import ALONE, Group
from teleport._quiver.quiver import Scaled

FEW = 16
"""Elements that mostly show that a parameter is not zero."""


def channel_changes(
    deviation: Tensor, groups: Mapping[str, Tensor], scaled: Mapping[str, Scaled], empty: Set[str]
) -> tuple[dict[str, float], set[str]]:
    """The root mean square of ``tau - 1`` over the channels of each weight, and the weights that are zero.

    A weight that is zero has 0. What moved with its channels, a bias or a reader, has its own entry then.

    Args:
        deviation: ``tau - 1 [classes]``.
        groups: name of a weight -> the classes of the channels that it makes.
        scaled: name -> parameter that is multiplied.
        empty: the :func:`zero_parameters` of these.
    """
    changes = {name: _root_mean_square(deviation[classes]) for name, classes in groups.items()}
    still = {name for name, change in changes.items() if change and _parameter(name) in empty}
    if not still:
        return changes, still
    changes |= dict.fromkeys(still, 0.0)
    reported = {_parameter(name) for name, change in changes.items() if change}
    drawn = torch.cat([groups[name].flatten() for name in still])
    drawn = drawn[deviation[drawn] != 0].cpu()
    for name, each in scaled.items():
        sides = torch.cat([each.output_class.flatten(), each.input_class.flatten()]).cpu()
        if name not in {*empty, *reported} and bool(torch.isin(sides, drawn).any()):
            changes[name] = _root_mean_square(each.factors(1 + deviation) - 1)
    return changes, still


def _parameter(name: str) -> str:
    """The parameter that a report's name is of, without the block."""
    return name.partition("[")[0]


def _root_mean_square(values: Tensor) -> float:
    return float(values.square().mean().sqrt()) if values.numel() else 0.0


def zero_parameters(scaled: Mapping[str, Scaled], group: Group = ALONE) -> set[str]:
    """The parameters whose elements are all zero.

    Args:
        scaled: name -> what this process holds of a parameter that is multiplied.
        group: of processes that may hold other rows.
    """
    starts = [each.parameter.detach().reshape(-1)[:FEW].any().cpu() for each in scaled.values()]
    named = zip(scaled.items(), starts, strict=True)
    empty = {name for (name, each), start in named if not bool(start) and not bool(each.parameter.detach().any())}
    if not group.holds_parts:
        return empty
    everyone = group.gathered((set(scaled), empty))
    return {name for _, zero in everyone for name in zero} - {name for own, zero in everyone for name in own - zero}
