"""A gate: what teleports could do at the current parameters, before anything moves."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teleport._arguments import check_call
from teleport._auto.auto import Auto, split_batches
from teleport._auto.report import Assessment, Family
from teleport._auto.rollout import Rollout, TrainStep
from teleport._engine.batch_loss import BatchLoss
from teleport._engine.contract import LossFn, Teleporter
from teleport._engine.objectives import Curvature
from teleport._engine.sharded import with_whole_parameters
from teleport._engine.transaction import ModelSnapshot
from teleport._errors import UnsupportedModel
from teleport._null_space.random_null_space import RandomNullSpace
from teleport._processes.ranks import Processes, group_of
from teleport._rescaling.rescaling import Rescaling
from teleport._tracing.replicas import check_shards, is_sharded
from teleport._tracing.undisturbed import ModelState, undisturbed
from teleport._undone import always_undone

LEAST_GROWTH = 1.1
"""A move that raises the gradient norm by less is not worth an event."""


def assess(
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    optimizer: torch.optim.Optimizer,
    *,
    growth: float = 2.0,
    horizon: int | None = None,
    tolerance: float = 0.05,
    share: float = 0.05,
    steps_left: int | None = None,
    rates: Sequence[float] = (1.0, 1.5, 2.0),
    train_step: TrainStep | None = None,
    process_group: Processes = None,
) -> Assessment:
    """Whether a teleport is worth its cost here. Everything that is tried is undone.

    Three families of moves are tried on the first batch, up to ``growth`` times the gradient norm: the shortest way in
    the null space of the layer inputs, a random move there of the same length, and the rescaling of channels, which
    keeps the loss on all data. For each: the growth of the norm and of the curvature along the gradient, the drift of
    the loss on other batches, and the loss there after one and after ``horizon`` virtual steps of the optimizer. Beside
    them, the same steps without a move at other learning rates: if a raised rate does as much, no teleport is needed.

    The answer is "go" if the null space raises the norm by 10 % or more, the rollout after the move is as good as
    without it (as of :class:`teleport.Auto`), no raised rate ends lower, and the steps that are left pay for an event.

    Args:
        model: any module.
        batches: as of :class:`teleport.Auto`: the first is the level set, the others try the moves.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        optimizer: of the training.
        growth, horizon, tolerance, share, train_step: as of :class:`teleport.Auto`.
        steps_left: of the training; ``None`` for no limit.
        rates: factors on the learning rate of the rollouts without a move.
        process_group: as of :class:`teleport.Auto`.

    Raises:
        ValueError: fewer than three batches.
        UnsupportedModel: the loss cannot be differentiated twice.
    """
    check_call(model, batches, loss_fn)
    check_shards(model)
    started = time.perf_counter()
    auto = Auto(optimizer, share=share, growth=growth, horizon=horizon, tolerance=tolerance, train_step=train_step)
    horizon = auto.horizon
    first, probes, steps = split_batches(batches, horizon)
    trials = _Trials(model, optimizer, loss_fn, first, probes, steps, train_step, process_group)
    raised = {rate: trials.rollout.losses(rate) for rate in dict.fromkeys(rates) if rate != 1}
    without = {rate: _mean(losses) for rate, losses in ({1.0: trials.losses} | raised).items()}
    families = [trials.family(auto, "null space", auto.method)]
    if trials.share_moved:
        random = RandomNullSpace(length=trials.share_moved, relative_cap=None)
        families.append(trials.family(auto, "random move", random))
    families.append(trials.family(auto, "rescaling", Rescaling(relative_cap=growth)))
    go, reasons = _answer(auto, families[0], without, steps_left)
    seconds = time.perf_counter() - started
    return Assessment(go, reasons, *trials.start, families, without, horizon, seconds)


class _Trials:
    """Moves that are measured and undone, and what they are compared with: the same without a move."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: LossFn,
        first: Any,
        probes: list[Any],
        steps: list[Any],
        train_step: TrainStep | None,
        processes: Processes,
    ) -> None:
        self._processes, self._group = processes, group_of(processes, model)
        self.model, self.loss_fn, self.first = model, loss_fn, first
        self.rollout = Rollout(model, optimizer, loss_fn, steps, probes, train_step, self._group)
        self._still = Rollout(model, optimizer, loss_fn, [], probes, train_step, self._group)
        self._once = Rollout(model, optimizer, loss_fn, steps[:1], probes, train_step, self._group)
        self.share_moved = 0.0  # the norm of the last move over that of the parameters that it moved
        clock = time.perf_counter()
        self.start = self.look()
        self._gradient = max(time.perf_counter() - clock, 1e-9) / 3  # seconds; a curvature takes about three gradients
        self._still_loss, self._once_loss = _mean(self._still.losses()), _mean(self._once.losses())
        self.losses = self.rollout.losses()

    def look(self) -> tuple[float, float, float]:
        """Loss, gradient norm and curvature along the gradient, on the first batch."""

        def work(state: ModelState) -> tuple[float, float, float]:
            def evaluate() -> Tensor:
                return state.evaluate(lambda: self.loss_fn(self.model, self.first))

            loss = BatchLoss(evaluate, self._trained(), group=self._group)
            point = loss.point(True)
            return float(point.loss), point.norm, Curvature().value(loss, point)

        return with_whole_parameters(self._group, self.model, lambda: undisturbed(self.model, work))

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _lengths(self, tensors: Sequence[Tensor]) -> list[float]:
        """The norm of each tensor; of shards, that of the whole one."""
        found: list[float] = []
        for tensor in tensors:
            norm = tensor.norm()
            found.append(float(norm.full_tensor() if is_sharded(norm) else norm))
        return found

    def family(self, auto: Auto, name: str, method: Teleporter) -> Family:
        """Move by ``method``, measure, and undo it."""
        before = ModelSnapshot(self.model)
        return always_undone(lambda: self._moved(auto, name, method), before.restore)

    def _moved(self, auto: Auto, name: str, method: Teleporter) -> Family:
        parameters = self._trained()
        start = [parameter.detach().clone() for parameter in parameters]
        try:
            report = method(self.model, [self.first], self.loss_fn, process_group=self._processes)
        except UnsupportedModel as error:
            return Family(name, reason=str(error))
        if report.no_op or not report.accepted:
            return Family(name, reason=report.batches[0].reason or f"nothing moved: {report.batches[0].stopped}")
        _, norm, curvature = self.start
        _, grown, bent = self.look()
        with torch.no_grad():
            distances = self._lengths([new - old for new, old in zip(parameters, start, strict=True)])
        sizes = self._lengths(start)
        distance, size = math.hypot(*distances), math.hypot(*sizes) or 1.0
        moving = math.hypot(*(own for own, moved in zip(sizes, distances, strict=True) if moved)) or 1.0
        self.share_moved = distance / moving
        return Family(
            name,
            growth=grown / norm if norm else 1.0,
            distance=distance / size,
            drift=(_mean(self._still.losses()) - self._still_loss) / max(1.0, abs(self._still_loss)),
            curvature=bent / curvature if curvature else 1.0,
            one_step=_mean(self._once.losses()) - self._once_loss,
            trial=auto.trial(self.losses, self.rollout.losses()),
            gradients=report.seconds / self._gradient,
        )


def _answer(auto: Auto, family: Family, without: dict[float, float], steps_left: int | None) -> tuple[bool, list[str]]:
    """Go or no go, and why."""
    against = []
    if family.reason or family.trial is None:
        return False, [f"the null space offers no move: {family.reason}"]
    if family.growth < LEAST_GROWTH:
        against.append(f"the move raises the gradient norm by a factor of {family.growth:.3g} only")
    if not auto.good(family.trial):
        against.append(
            f"after {family.trial.steps} steps the loss is {family.trial.moved:.4g} with the move and "
            f"{family.trial.without:.4g} without"
        )
    best = min(without, key=lambda rate: without[rate] if math.isfinite(without[rate]) else math.inf)
    if best != 1 and without[best] < min(without[1.0], family.trial.moved):
        against.append(
            f"after {family.trial.steps} steps {best:g} times the learning rate ends at {without[best]:.4g}, the move "
            f"at {family.trial.moved:.4g}: raise the rate first"
        )
    needed = math.ceil(auto.cost / auto.share)
    if steps_left is not None and steps_left < needed:
        against.append(
            f"an event costs {auto.cost:.0f} gradients, {auto.share:.0%} of {needed} steps; {steps_left} are left"
        )
    if against:
        return False, against
    return True, [
        f"the move raises the gradient norm by a factor of {family.growth:.3g} at a drift of {family.drift:+.1e}, and "
        f"after {family.trial.steps} steps the loss is {family.trial.moved:.4g} with it and {family.trial.without:.4g} "
        "without"
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
