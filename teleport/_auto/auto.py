"""A teleport that needs no settings: moved, tried on a virtual rollout of the training itself, kept or undone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from teleport._arguments import check_call, check_positive, check_share, check_whole
from teleport._auto.report import AutoReport, Trial
from teleport._auto.rollout import Rollout, TrainStep
from teleport._engine.contract import LossFn, Teleporter
from teleport._engine.progress import Callback
from teleport._engine.report import TeleportReport
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import ModelSnapshot
from teleport._null_space.null_space import NullSpace
from teleport._processes.group import Group
from teleport._processes.ranks import Processes, group_of
from teleport._tracing.replicas import check_shards

EVENT_GRADIENTS = 12.0
"""The assumed cost of a move on one batch, in gradients of that batch."""

LONGEST = 16
"""The most steps per rollout, unless ``horizon`` is set."""

SHORTEST = 2
"""The fewest steps per rollout; without the budget for them there is no event."""

FORWARD = 1 / 3
"""The cost of a loss without its gradient, in gradients."""

TRIES_IN_VAIN = 2
"""After so many events in a row that were undone or moved nothing, the interval between events doubles."""


class Auto:
    """Move to a larger gradient norm, and keep the move only if the training goes on as well from there.

    An event moves by the shortest way in the null space of one batch to ``growth`` times the gradient norm. Then the
    training is rolled out virtually, without and with the move: ``horizon`` steps of the real optimizer on other
    batches, from the same random state. The move is undone if the mean loss on further batches is higher with it by
    more than ``tolerance`` of the loss and by more than twice its standard error, or is not finite.

    A short rollout cannot show the gain: on the networks measured here a move often raises the loss for some steps
    and lowers it at the end of the training. The rollout is a safeguard. The events are spread by their cost: all of
    them take at most ``share`` of the gradients of the training so far or, with ``total_steps``, of the whole training,
    so that the first can come at its beginning. After two events in vain the interval doubles.

    Use it in a training loop::

        auto = teleport.Auto(optimizer, total_steps=epochs * len(loader))
        for batch in loader:
            auto.before_step(model, batch, loss_fn)
            ...  # the usual step

    or call it as any other method, ``auto(model, batches, loss_fn)``, whenever you like.

    Args:
        optimizer: of the training; its state is used by the rollouts and is restored.
        share: of the gradients of the training that all events may take.
        total_steps: of the training, if it is known.
        growth: of the gradient norm, as ``relative_cap`` of :class:`teleport.NullSpace`.
        horizon: steps per rollout; ``None`` for 16, or as many as leave room for two events in ``total_steps``.
        event_gradients: the cost of a move, in gradients of a training batch: more than the 12 of a batch of that size
            if the batches that are moved on are larger.
        tolerance: the relative rise of the loss after the rollout that a move may cause.
        method: the method that moves; ``None`` for the shortest way in the null space.
        train_step: one step of the caller's training; ``None`` for a plain one. See :class:`Rollout`.

    Attributes:
        reports: of the events so far.

    Raises:
        TypeError: an argument of another type.
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        share: float = 0.05,
        total_steps: int | None = None,
        growth: float = 2.0,
        horizon: int | None = None,
        event_gradients: float = EVENT_GRADIENTS,
        tolerance: float = 0.05,
        method: Teleporter | None = None,
        train_step: TrainStep | None = None,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        check_positive(growth=growth, tolerance=tolerance, event_gradients=event_gradients)
        check_share("share", share)
        counts = {"horizon": horizon, "total_steps": total_steps}
        check_whole(**{name: count for name, count in counts.items() if count is not None})
        self.optimizer = optimizer
        self.share = share
        self.total_steps = total_steps
        self.growth = growth
        self.event_gradients = event_gradients
        self.horizon = self._longest_of_two() if horizon is None else horizon
        self.tolerance = tolerance
        self.method = method or NullSpace(path="shortest", lr=0.3, steps=3, relative_cap=growth)
        self.train_step = train_step
        self.reports: list[AutoReport] = []
        self._recent: list[Any] = []  # batches that were trained on, the newest last
        self._step = 0  # of the training
        self._events = 0
        self._in_vain = 0  # events in a row
        self._next = 0  # the step before which the next event may come

    @property
    def cost(self) -> float:
        """The assumed cost of an event, in gradients of a training batch."""
        return self._cost_of(self.horizon)

    @property
    def spent(self) -> float:
        """The assumed cost of all events so far, in gradients of a training batch."""
        return self._events * self.cost

    @property
    def needed(self) -> int:
        """How many batches an event takes besides the one that it moves on."""
        return self.horizon + _probes(self.horizon)

    @property
    def due(self) -> bool:
        """Whether an event may come before the next training step."""
        return self._step >= self._next and self.affordable(self._step, self._events)

    def affordable(self, step: int, events: int) -> bool:
        """Whether the budget allows one more event before the training step ``step``, after ``events`` events."""
        steps = step if self.total_steps is None else max(step, self.total_steps)
        return self.horizon >= SHORTEST and (events + 1) * self.cost <= self.share * steps

    def before_step(self, model: nn.Module, batch: Any, loss_fn: LossFn) -> AutoReport | None:
        """Count a training step on ``batch``, and teleport before it if an event is due.

        The level set is that of ``batch``. The rollouts take the batches of the last steps, which are kept.

        Returns:
            the report of the event, ``None`` if there was none.
        """
        report = None
        if self.due and len(self._recent) >= 2:
            report = self(model, [batch, *reversed(self._recent)], loss_fn)
        self._recent = [*self._recent, batch][-self.needed :]
        self._step += 1
        return report

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss_fn: LossFn,
        *,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
        keep_modes: bool = False,
        process_group: Processes = None,
    ) -> AutoReport:
        """Teleport ``model`` in place on the first batch, judged on the others.

        Args:
            model: any module.
            batches: the first is the level set. Of the others a quarter, at most 4 and at least one, measures the loss
                after the rollouts, which are trained on the rest, in turn if they are fewer than ``horizon``.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            generator: for methods that draw random numbers.
            callback: called per step, see ``teleport.Callback``.
            keep_modes: of the move, see :class:`teleport.Teleporter`.
            process_group: the processes that train and teleport together. In a ``DistributedDataParallel`` the rollouts
                exchange gradients as the training does; without one, gradients are averaged unless there is a
                ``train_step``, which must do that itself.

        Raises:
            ValueError: fewer than three batches; or as the method.
            UnsupportedModel: as the method.
        """
        check_call(model, batches, loss_fn, callback)
        check_shards(model)
        options: dict[str, Any] = {"generator": generator, "callback": callback, "keep_modes": keep_modes}
        group = group_of(process_group, model)
        if process_group is not None:  # methods of others may not take it
            options["process_group"] = process_group
        return group.together(lambda: self._event(group, model, batches, loss_fn, options))

    def _event(
        self, group: Group, model: nn.Module, batches: Iterable[Any], loss_fn: LossFn, options: dict[str, Any]
    ) -> AutoReport:
        first, probes, steps = split_batches(batches, self.horizon)
        group.agree(number_of_batches=(len(probes), len(steps)))
        rollout = Rollout(model, self.optimizer, loss_fn, steps, probes, self.train_step, group)
        before = ModelSnapshot(model)
        try:
            without = rollout.losses()
            found = self.method(model, [first], loss_fn, **options)
            trial = None
            if found.accepted and not found.no_op:
                trial = self.trial(without, rollout.losses())
            report = self._judged(found, trial)
            if trial is not None and not report.accepted:
                before.restore()
            group.commit()
        except BaseException:
            before.restore()
            raise
        self._book(report)
        return report

    def _cost_of(self, horizon: int) -> float:
        return self.event_gradients + 2 * (horizon + FORWARD * _probes(horizon))

    def _longest_of_two(self) -> int:
        """The longest rollout with which the budget allows two events, from the shortest to the longest."""
        if self.total_steps is None:
            return LONGEST
        budget = self.share * self.total_steps / 2
        fitting = (steps for steps in range(LONGEST, SHORTEST, -1) if self._cost_of(steps) <= budget)
        return next(fitting, SHORTEST)

    def trial(self, without: Sequence[float], moved: Sequence[float]) -> Trial:
        """The comparison of the losses on the same batches after two rollouts."""
        differences = [new - old for old, new in zip(without, moved, strict=True)]
        mean = sum(differences) / len(differences)
        spread = sum((each - mean) ** 2 for each in differences) / max(1, len(differences) - 1)
        noise = math.sqrt(spread / len(differences)) if math.isfinite(spread) else math.inf
        level = sum(without) / len(without)
        after = level + mean if math.isfinite(mean) else math.inf
        return Trial(self.horizon, level, after, noise, 2 * (self.horizon + FORWARD * len(without)))

    def _judged(self, found: TeleportReport, trial: Trial | None) -> AutoReport:
        """The report of the method as that of this one, undone if the trial is against it."""
        fields = {each.name: getattr(found, each.name) for each in dataclasses.fields(TeleportReport)}
        report = AutoReport(**fields | {"method": "auto"})
        report.trial = trial
        if trial is None or self.good(trial):
            return report
        why = f"undone: after {trial.steps} steps the loss on other batches is {trial.moved:.4g} with the move"
        why += f" and {trial.without:.4g} without"
        report.loss_after, report.gradient_norm_after = report.loss_before, report.gradient_norm_before
        for batch in report.batches:
            batch.accepted, batch.reason, batch.stopped = False, why, Stopped.ROLLED_BACK
        for layer in report.layers:
            if layer.relative_change:
                layer.relative_change, layer.reason = 0.0, why
        return report

    def good(self, trial: Trial) -> bool:
        """Whether the training goes on as well with the move as without it."""
        if not math.isfinite(trial.moved):
            return not math.isfinite(trial.without)
        return -trial.gain <= max(self.tolerance * abs(trial.without), 2 * trial.noise if trial.noise < math.inf else 0)

    def _book(self, report: AutoReport) -> None:
        """Count an event, and set the step of the next one."""
        self._events += 1
        self._in_vain = 0 if report.accepted and not report.no_op else self._in_vain + 1
        interval = self.cost / self.share * 2.0 ** (self._in_vain // TRIES_IN_VAIN)
        self._next = self._step + math.ceil(interval)
        self.reports.append(report)


def _probes(horizon: int) -> int:
    """How many batches measure the loss after a rollout, if there are as many as an event takes."""
    return max(1, min(4, horizon // 3))


def split_batches(batches: Iterable[Any], horizon: int) -> tuple[Any, list[Any], list[Any]]:
    """The batch to move on, those to measure on, and the ``horizon`` batches of a rollout.

    Raises:
        ValueError: fewer than three batches.
    """
    given = list(batches)
    if len(given) < 3:
        raise ValueError(
            f"three batches or more are needed, one to move on and the others to try the move on, got {len(given)}"
        )
    first, *others = given
    count = max(1, min(4, len(others) // 4))
    probes, training = others[:count], others[count:]
    return first, probes, [training[number % len(training)] for number in range(horizon)]
