"""The relative change of each parameter over an event, for methods that move whole parameters."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from teleport._engine.layer_reports import LayerReport
from teleport._processes.group import ALONE, Group
from teleport._spaces.norms import norm_of


class ParameterStatistics:
    """Saves the trainable parameters before an event, and reports their changes after it.

    Args:
        named: the parameters.
        start: their values before the event, for those that evaluations may have written into already.
        group: of processes that may hold rows of the parameters.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        start: Mapping[nn.Parameter, Tensor] | None = None,
        group: Group = ALONE,
    ) -> None:
        self._group = group
        values = start or {}
        self._held = {
            name: (parameter, _in_double(values.get(parameter, parameter)).clone())
            for name, parameter in named.items()
            if parameter.requires_grad
        }

    def close(self, moved: Collection[nn.Parameter]) -> list[LayerReport]:
        """One report per trainable parameter, with its relative change since.

        Args:
            moved: parameters that the method moves. Changes of others, by evaluations of the loss, will be undone.
        """
        reports = []
        for name, (parameter, before) in self._held.items():
            change = relative_change(before, _in_double(parameter), self._group) if parameter in moved else 0.0
            reason = "" if change else "no step was taken or kept, or the loss does not depend on it"
            reports.append(LayerReport(name, "parameter", 0, relative_change=change, reason=reason))
        return reports


def _in_double(parameter: Tensor) -> Tensor:
    """The values of a parameter in double precision; a complex one as pairs of real numbers."""
    values = parameter.detach()
    return (torch.view_as_real(values) if values.is_complex() else values).double()


def relative_change(before: Tensor, after: Tensor, group: Group = ALONE) -> float:
    """``|after - before| / |before|``, infinite if an element turned infinite or NaN.

    Elements that are NaN in both, or the same infinity, count as unchanged.

    Args:
        before, after: of a tensor, or of the rows of it that this rank of the ``group`` holds.
        group: of processes.
    """
    distance = norm_of(after - before)
    if not math.isfinite(distance):
        unchanged = (after == before) | (after.isnan() & before.isnan())
        distance = norm_of((after - before).masked_fill(unchanged, 0))
    size = norm_of(before)
    if not math.isfinite(size):
        size = norm_of(before.nan_to_num(0, 0, 0))
    distance, size = group.lengths(distance, size)
    if not math.isfinite(distance):
        return math.inf
    return distance / (size or 1.0)
