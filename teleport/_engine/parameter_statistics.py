"""How far the parameters of a model went, for methods that move them as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from teleport._engine.report import LayerReport


class ParameterStatistics:
    """The reports of a method that moves parameters as they are, without asking what they multiply."""

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        self._held = {
            name: (parameter, _in_double(parameter).clone())
            for name, parameter in named.items()
            if parameter.requires_grad
        }

    def close(self) -> list[LayerReport]:
        """Measure how far each trainable parameter went since."""
        reports = []
        for name, (parameter, before) in self._held.items():
            change = relative_change(before, _in_double(parameter))
            reason = "" if change else "no step was taken or kept, or the loss does not depend on it"
            reports.append(LayerReport(name, "parameter", 0, relative_change=change, reason=reason))
        return reports


def _in_double(parameter: nn.Parameter) -> Tensor:
    """The values of a parameter in double precision; a complex one as pairs of real numbers."""
    values = parameter.detach()
    return (torch.view_as_real(values) if values.is_complex() else values).double()


def relative_change(before: Tensor, after: Tensor) -> float:
    """``|after - before| / |before|``; what is not a number in both, or infinite in both, is unchanged."""
    distance = float((after - before).norm())
    if not math.isfinite(distance):
        unchanged = (after == before) | (after.isnan() & before.isnan())
        distance = float((after - before).masked_fill(unchanged, 0).norm())
    return distance / (float(before.norm()) or 1.0) if distance else 0.0
