"""The event of a rescaling by general matrices: finds the symmetries, ascends in closed form, applies and reports."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.common_move import agree_on_symmetries
from teleport._change_of_basis.group_value import GroupChange
from teleport._engine.batch_loss import Point
from teleport._engine.event import Event
from teleport._engine.layer_reports import LayerReport
from teleport._engine.transaction import Snapshot
from teleport._rescaling.group_norm import Position, SquaredGradientNormOfGroup
from teleport._rescaling.rescaling_event import MoveEvent, Settings
from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.elements import GroupElement
from teleport._symmetry_groups.find_symmetries import trace_symmetries
from teleport._symmetry_groups.places import trained
from teleport._symmetry_groups.tangents import TangentSpace
from teleport._tracing.evaluations import Modes

ROTATIONS_ALONE = "no general matrix acts on it, and rotations and permutations keep the gradient norm"


class GroupEvent(MoveEvent[Position]):
    """The moves of one event along the orbit of factors and matrices.

    Args:
        method: the arguments.
        event: of the call.
        modes: of training, of the model before the event.
    """

    def __init__(self, method: Settings, event: Event, modes: Modes) -> None:
        self.method, self.event = method, event
        runs = [torch.enable_grad()(partial(event.evaluate, batch)) for batch in event.batches]
        self.symmetries = trace_symmetries(event.model, runs, modes, event.batches)
        agree_on_symmetries(event.group, self.symmetries)
        self.space = TangentSpace(
            self.symmetries, list(trained(event.model)), scalings=method.group == "all", compact=False
        )
        self.moving = {name: event.named[name] for name in self.space.moving}
        event.moved |= set(self.moving.values())
        self.snapshot = Snapshot(self.moving.values())
        self.start = {each: each.detach().clone() for each in self.moving.values()}
        self.x = self._identity = Position.start(self.space)
        self.change = GroupChange([])

    @property
    def empty(self) -> bool:
        """Whether no factor and no general matrix acts."""
        return self.space.empty

    def norm(self, points: Sequence[Point]) -> SquaredGradientNormOfGroup:
        """The squared gradient norm of the one point that an ascent takes."""
        (point,) = points
        gradients = dict(zip(self.event.trainable, map(_dense, point.gradients), strict=True))
        moving = {name: gradients.pop(each).double() for name, each in self.moving.items()}
        constant = sum(float(each.abs().double().square().sum()) for each in gradients.values())
        return SquaredGradientNormOfGroup(self.space, moving, self.x, constant)

    @torch.no_grad()
    def apply(self, x: Position) -> None:
        """Move the parameters from their values before the event: no rounding accumulates."""
        if x.equals(self.x):
            return
        self.x, self.change = x, self._change(x)
        for parameter, start in self.start.items():
            parameter.copy_(start)
        self.change.apply(self.event.model)

    def _change(self, x: Position) -> GroupChange:
        if x.equals(self._identity):
            return GroupChange([])
        symmetries = self.symmetries
        parts: list[BasisChange | GroupElement] = []
        if bool(self.space.sign.any()):
            parts.append(BasisChange(symmetries.quiver, self.space.carried(x.logarithms).exp()))
        if x.matrices:
            actions = [
                AxisAction(each, symmetries.companions[each], matrix=of, inverse=torch.linalg.inv(of))
                for each, of in x.matrices.items()
            ]
            parts.append(GroupElement(symmetries.axes, actions))
        return GroupChange(parts)

    def layers(self) -> list[LayerReport]:
        """One report per parameter: how far it moved, or why it stayed."""
        found = []
        for name, parameter in self.event.named.items():
            start = self.start.get(parameter)
            change = 0.0 if start is None else _relative(parameter, start)
            still = "no step was taken or kept" if name in self.moving else ROTATIONS_ALONE
            reason = "" if change else self.symmetries.pinned.get(name, still)
            found.append(LayerReport(name, "parameter", 0, change, reason))
        return found


@torch.no_grad()
def _relative(parameter: nn.Parameter, start: Tensor) -> float:
    norm = float(start.double().norm())
    return float((parameter.double() - start.double()).norm()) / norm if norm else 0.0


def _dense(gradient: Tensor) -> Tensor:
    return (gradient.to_dense() if gradient.is_sparse else gradient).detach()
