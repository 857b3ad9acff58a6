"""The state of one teleport event: model, batches, the loss with its gradients, and the losses measured so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import BatchLoss, Point
from teleport._engine.contract import Monitor
from teleport._engine.transaction import Snapshot
from teleport._processes.group import Group
from teleport._segments.plan import WHOLE, Plan
from teleport._spaces.norms import half_squared_norm
from teleport._tangents.product import hessian_product
from teleport._tracing.preconditions import no_trainable_parameter

Halves = dict[nn.Parameter, float]
"""``1/2 |g|^2`` of each parameter's gradient g on one batch."""


class Event:
    """The state of an event that a method works with.

    Attributes:
        model: in evaluation mode.
        batches: of the event, at least one.
        evaluate: the loss of a batch of this process, a scalar with a graph, at the current parameters; with the same
            random numbers each time. Tracers watch it. Numbers come from :meth:`loss` and :meth:`batch_loss`.
        evaluate_once: the same, not to be differentiated: each tensor is computed once, in the order of the model's
            code, for tracers that follow it.
        draw: the result of the caller's code that makes a batch; its random numbers go on from call to call.
        named: all parameters by name; ``names``: the reverse; ``trainable``: those that require a gradient.
        moved: parameters that the method moves. Changes of others, by evaluations of the loss, are undone.
        monitor: of the steps, for the callback.
        group: of processes that move the model together.
        plan: how ``evaluate`` computes the loss.
        traced: the parameters by name as tracers see them; of shards, those that stand for whole ones.
        start: the values of the parameters before the first evaluation, which may write into them.
        ended: of the moved parameters when the method is done, if later evaluations may write into them.
        halves: of every batch but the first before the event, if the cap is relative.
        losses: of batches before the event, by number, as far as they are known without the batches' reports.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: list[Any],
        evaluate: Callable[[Any], Tensor],
        draw: Callable[[Callable[[], Any]], Any],
        monitor: Monitor,
        group: Group,
        plan: Plan = WHOLE,
        traced: Mapping[str, nn.Parameter] | None = None,
        evaluate_once: Callable[[Any], Tensor] | None = None,
    ) -> None:
        self.plan = plan
        self.model = model
        self.batches = batches
        self.evaluate = evaluate
        self.evaluate_once = evaluate_once or evaluate
        self.draw = draw
        self.monitor = monitor
        self.group = group
        self.named = dict(model.named_parameters())
        self.traced = self.named if traced is None else traced
        self.names = {parameter: name for name, parameter in self.named.items()}
        self.trainable = [parameter for parameter in self.named.values() if parameter.requires_grad]
        self.moved: set[nn.Parameter] = set()
        self.halves: list[Halves] = []
        self.losses: dict[int, Tensor] = {}
        self.ended: Snapshot | None = None
        self.start: Mapping[nn.Parameter, Tensor] = {}
        if not self.trainable:
            raise ValueError(no_trainable_parameter(model))

    def loss(self, batch: Any) -> Tensor:
        """The loss of a batch over all processes of the group, detached."""
        return self.group.mean([self.evaluate(batch).detach()])[0]

    def mean_loss(self, batches: Iterable[Any]) -> float:
        """The mean loss over some batches."""
        return mean_of([float(self.loss(batch)) for batch in batches])

    def batch_loss(self, batch: Any, parameters: list[nn.Parameter]) -> BatchLoss:
        """The loss on ``batch`` with its gradients for ``parameters``."""
        product = partial(hessian_product, self.model) if self.plan.tangents else None
        known = self.start, self.plan.lean, product
        return BatchLoss(lambda: self.evaluate(batch), parameters, self.names, batch, self.group, *known)

    def halves_of(self, point: Point) -> Halves:
        """``1/2 |g|^2`` per trainable parameter, of a point whose gradients are over these."""
        with torch.no_grad():
            halves = self.group.totals([float(half_squared_norm([gradient])) for gradient in point.gradients])
        return dict(zip(self.trainable, halves, strict=True))

    def measure_from(self, first: int, gradients: bool = False) -> None:
        """Enter the losses of the batches from number ``first`` on; with ``gradients`` their norms as ``halves``."""
        for number in range(first, len(self.batches)):
            batch = self.batches[number]
            if gradients:
                point = self.batch_loss(batch, self.trainable).point(differentiable=False)
                self.halves.append(self.halves_of(point))
                self.losses[number] = point.loss
            else:
                self.losses[number] = self.loss(batch)

    def about_to_move(self, number: int) -> None:
        """Enter the losses of the batches after ``number`` once, before the first move; the others have reports.

        For methods that move on one batch after the other. A batch whose start is at the parameters of the event's
        start or end is then not evaluated once more.
        """
        if not self.losses:
            self.measure_from(number + 1)


def mean_of(losses: Sequence[float]) -> float:
    """The mean of some losses, exact but for one rounding if all are finite."""
    return math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else sum(losses) / len(losses)
