"""Networks on the straight line between two, and the barrier of the loss there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from teleport._arguments import check_batches, check_call
from teleport._engine.contract import LossFn
from teleport._matching.same_architecture import check_same
from teleport._tracing.outputs import Forward, call_model

Result = TypeVar("Result")


@dataclass(frozen=True)
class Line:
    """The networks ``(1 - alpha) A + alpha B``.

    Attributes:
        first: A, at alpha = 0.
        second: B, at alpha = 1; of the same architecture.
        inputs: batches, from which the batch norms of each network on the line take their mean statistics: the running
            statistics of A and B do not apply to a network between them. Without any, the buffers are A's.
        forward: ``forward(model, batch)``, one evaluation of ``inputs``; by default as of ``teleport.ChangeOfBasis``.
    """

    first: nn.Module
    second: nn.Module
    inputs: Sequence[Any] = ()
    forward: Forward = call_model

    def along(self, alphas: Iterable[float], evaluate: Callable[[nn.Module], Result]) -> list[Result]:
        """``evaluate(network)`` at each alpha; the network is in evaluation mode, and the same object each time."""
        model = copy.deepcopy(self.first).eval()
        return [evaluate(self._at(alpha, model)) for alpha in alphas]

    def _at(self, alpha: float, model: nn.Module) -> nn.Module:
        ends = zip(self.first.parameters(), self.second.parameters(), strict=True)
        with torch.no_grad():
            for parameter, (first, second) in zip(model.parameters(), ends, strict=True):
                parameter.copy_(first + alpha * (second - first))
        reset_statistics(model, self.inputs, self.forward)
        return model


def reset_statistics(model: nn.Module, inputs: Sequence[Any], forward: Forward = call_model) -> None:
    """Set each batch norm's running statistics to their means over ``inputs``, in place; no inputs change nothing.

    The mode of the model is the same afterwards. Source: Jordan et al. 2023, REPAIR, for networks with batch norm.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms or not inputs:
        return
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # a plain mean over the batches
        module.train()
    with torch.no_grad():
        for batch in inputs:
            forward(model, batch)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        module.training = model.training


@dataclass(frozen=True)
class Barrier:
    """The loss along the line between two networks.

    Attributes:
        alphas: from 0 (the first network) to 1 (the second).
        losses: the mean loss over the batches at each alpha.
        excess: the losses less the linear interpolation of the two at the ends.
    """

    alphas: list[float]
    losses: list[float]
    excess: list[float]

    @property
    def height(self) -> float:
        """The largest excess: the loss barrier. It is 0 or more, as the ends have none."""
        return max(self.excess)

    def __str__(self) -> str:
        place = self.alphas[self.excess.index(self.height)]
        return (
            f"barrier {self.height:.4g} at alpha {place:.2f}; losses {self.losses[0]:.4g} (first) and "
            f"{self.losses[-1]:.4g} (second), {max(self.losses):.4g} at most between them"
        )


def barrier(
    a: nn.Module,
    b: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    points: int = 25,
    statistics: Iterable[Any] | None = None,
    forward: Forward | None = None,
) -> Barrier:
    """The loss on the straight line from ``a`` to ``b``, and how far it rises above its linear interpolation.

    The barrier is the largest difference between the loss and the linear interpolation of the losses at the ends
    (Frankle et al. 2020; Entezari et al. 2022). Networks are evaluated in evaluation mode; ``a`` and ``b`` stay as
    they are. Buffers between the ends are those of ``a``, but for batch norms with ``statistics``.

    Args:
        a: at alpha = 0.
        b: at alpha = 1, of the same architecture.
        batches: on which the loss is measured; its mean over them is reported.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        points: alphas, evenly from 0 to 1, at least 3.
        statistics: batches from which the batch norms of each network on the line, the ends included, take their
            statistics anew (Jordan et al. 2023). ``None`` keeps those of ``a``, which suit no other network.
        forward: ``forward(model, batch)``, one evaluation of ``statistics``; by default as of
            ``teleport.ChangeOfBasis``.

    Raises:
        ValueError: the architectures differ, there are no batches, or too few points.
    """
    held, kept = list(_checked("batches", batches)), list(_checked("statistics", statistics or ()))
    for each in (a, b):
        check_call(each, held, loss_fn)
    check_same(a, b)
    if not held:
        raise ValueError("a barrier needs at least one batch")
    if isinstance(points, bool) or not isinstance(points, int) or points < 3:
        raise ValueError(f"points must be a whole number from 3, got {points!r}")

    def mean_loss(model: nn.Module) -> float:
        with torch.no_grad():
            return sum(float(loss_fn(model, batch)) for batch in held) / len(held)

    alphas = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
    losses = Line(a, b, kept, forward or call_model).along(alphas, mean_loss)
    return Barrier(alphas, losses, excess(alphas, losses))


def excess(alphas: Sequence[float], losses: Sequence[float]) -> list[float]:
    """The losses less the linear interpolation of the first and the last of them."""
    first, last = losses[0], losses[-1]
    return [loss - ((1 - alpha) * first + alpha * last) for alpha, loss in zip(alphas, losses, strict=True)]


def _checked(name: str, batches: Any) -> Any:
    check_batches(name, batches)
    return batches
