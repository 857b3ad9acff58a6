"""Null-space gradient projection (Wu et al. 2025, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import (
    check_choice,
    check_generator,
    check_iterable,
    check_limits,
    check_steps,
    check_threshold,
)
from teleport._engine.ascent import Ascent, ascend
from teleport._engine.batch_loss import Point
from teleport._engine.capped_step import Line
from teleport._engine.contract import LossFn, unmonitored
from teleport._engine.objectives import TeleportObjective, objective_of
from teleport._engine.progress import Callback
from teleport._engine.report import StepRecord, TeleportReport
from teleport._engine.shortest import ascend_shortest
from teleport._engine.statuses import Stopped
from teleport._null_space.ascent_problem import AscentProblem, StepRule
from teleport._null_space.driver import run_null_space_event
from teleport._null_space.random_directions import RandomDirections, move_along
from teleport._null_space.settings import NullSpaceSettings
from teleport._processes.ranks import Processes
from teleport._segments.plan import check_memory
from teleport._spaces.norms import joint_norm


@dataclass(frozen=True)
class NullSpace:
    """Raise the gradient norm by moving weights in the null space of the layer inputs (Wu et al. 2025, Algorithm 1).

    For each batch: find the space that each layer's inputs span, then take ``steps`` steps of gradient ascent on
    ``1/2 |grad L|^2`` (or another ``objective``) with each layer's gradient projected onto the orthogonal complement.
    At ``threshold`` 1 no layer's output changes on the batch, so the loss on the batch does not change either. The loss
    on other data changes (``report.drift``).

    Use it early in training, if layers are wider than the rank of their inputs. It has no effect if no layer has null
    dimensions (many positions, narrow layers; the report says so) or if the gradient norm is above the cap at the
    start. Do not use it if the loss on other data must not change.

    Args:
        lr: the length of a step along the projected gradient of the objective, in units of ``lr_unit``.
        lr_unit: ``"relative"`` for the norm of all weights that may move on the batch, so that a step of the default
            moves them by at most 10 % of it; ``"absolute"`` for the projected gradient itself, as in the paper: then
            ``lr`` is eta_tel.
        steps: K, the largest number of steps per batch.
        threshold: tau in (0, 1]. 1 protects all directions of the inputs up to their numerical rank. Below 1 only the
            leading directions with this share of the inputs' energy are protected (equation 3), and the loss changes
            slightly.
        step: ``"cap"`` shortens a step so that the gradient norm ends at most at the cap and the objective does not get
            worse. ``"fixed"`` is the paper's rule: steps of full length until the norm is above the cap.
        cap: the largest gradient norm, ``None`` for none.
        relative_cap: a cap as a factor on the mean gradient norm before the event; see :class:`teleport.Teleporter`.
            The paper has none, and no bound of a batch's growth but ``cap``.
        guard: ``"transaction"`` undoes the steps on a batch if they changed the loss on the batch (on the constraint,
            if there is one) by more than ``tolerance * max(1, |loss|)``, or made the loss, the gradient norm or a
            parameter infinite or NaN. ``"none"`` keeps all steps, as in the paper.
        tolerance: of the guard, relative to ``max(1, |loss|)``.
        objective_params: the gradient norm is over ``"all"`` trainable parameters or over the ``"moved"`` ones only.
        objective: the function to raise or lower: a name in ``teleport.OBJECTIVES`` or a :class:`TeleportObjective`.
            The cap is on the gradient norm for every objective.
        objective_scale: the rate of ``loss_after_step`` or the radius of ``sharpness``; ``None`` for the default.
        forward: ``"once"`` freezes the forward pass: it is run once per batch if no layer output changes, that is at
            threshold 1, without a ``constraint``, and for objectives of the gradient norm alone. The intermediate steps
            then have the loss of the start in the batch's ``trace``, and layers no ``surviving`` shares. ``"each"``
            runs the forward pass at each step. Both take the same steps up to rounding. If the gradient norm after a
            batch's steps is not the model's, or the recorded graph cannot be split, it is run at each step, and so it
            is if several processes move the model together.
        path: ``"ascent"`` takes steps one after the other, each along the gradient where it starts. ``"shortest"``
            moves in one straight line to the cap, at most by ``lr * steps``; each step improves its direction. The
            move is 2 to 48 % shorter than one step along the gradient on the networks of
            ``scripts/benchmark.py drift``; its drift on other data is mostly smaller, but not always.
            ``"least_drift"`` moves in one straight line as well, in the direction that raises the norm most per
            change of the layers' outputs on ``held_out`` batches, which the call takes. ``"random"`` is the control of
            equal length: the steps of the ascent are taken and undone, and the weights move as far as they did, or
            up to the cap, in a direction drawn from ``generator``, which the call takes. It takes longer than the
            ascent alone.
        memory: the budget of an event, in bytes or as text such as ``"2GB"``; see :class:`teleport.Teleporter`. It is
            for objectives of the gradient norm alone.

    Raises:
        ValueError: an argument outside its range.
    """

    lr: float = 0.1
    steps: int = 8
    threshold: float = 1.0
    step: Literal["cap", "fixed"] = "cap"
    cap: float | None = None
    relative_cap: float | None = 2.0
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3
    objective_params: Literal["all", "moved"] = "all"
    objective: str | TeleportObjective = "squared_gradient_norm"
    objective_scale: float | None = None
    forward: Literal["once", "each"] = "once"
    lr_unit: Literal["relative", "absolute"] = "relative"
    path: Literal["ascent", "shortest", "least_drift", "random"] = "ascent"
    memory: int | str | None = None

    def __post_init__(self) -> None:
        check_steps(self.lr, self.steps, self.step, self.lr_unit)
        check_threshold(self.threshold)
        check_limits(self.cap, self.relative_cap, self.guard, self.tolerance)
        check_choice("objective_params", self.objective_params, ("all", "moved"))
        check_choice("forward", self.forward, ("once", "each"))
        check_choice("path", self.path, ("ascent", "shortest", "least_drift", "random"))
        objective = objective_of(self.objective, self.objective_scale)  # raises for an unknown objective
        check_memory(self.memory, objective.of_norm)
        raised = objective.of_norm and objective.ascended
        to_the_cap = self.path in ("shortest", "least_drift")
        if to_the_cap and not (raised and self.step == "cap" and self.lr_unit == "relative"):
            raise ValueError(
                f"path={self.path!r} moves to the cap on the gradient norm: it takes an objective that raises the "
                "norm, step='cap' and lr_unit='relative'"
            )

    @property
    def _objective(self) -> TeleportObjective:
        return objective_of(self.objective, self.objective_scale)

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss_fn: LossFn,
        constraint: Iterable[Any] | None = None,
        *,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
        keep_modes: bool = False,
        held_out: Iterable[Any] | None = None,
        process_group: Processes = None,
    ) -> TeleportReport:
        """Teleport ``model`` in place.

        Args:
            model: any module. Its trainable parameters may move. Modes, buffers, ``requires_grad``, ``.grad`` and
                torch's global random state are restored. After an exception the parameters are restored as well.
            batches: what ``loss_fn`` takes, one level set per batch; B batches of n samples.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            constraint: batches whose layer inputs are protected, all of them at once, instead of those of each batch.
                If the constraint has other data than the batches, the first layer can move as well.
            generator: the source of the directions of ``path="random"``, which needs it; each call draws one number
                from it. Other paths draw no random numbers.
            callback: called per batch and per step, see ``teleport.Callback``.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.
            held_out: batches of other samples, for ``path="least_drift"`` alone, which needs them. They constrain
                nothing. They are read once per event, before its first move, one after the other: of all batches
                together, one ``[dimension, dimension]`` matrix per layer is kept. Layers that have no null
                dimension on the first batch that moves stay for the whole event.

        Raises:
            ValueError: there are no batches or no trainable parameters, or the loss is not a scalar or depends on no
                trainable parameter; ``held_out`` does not go with the ``path``, or is empty; ``path="random"`` has no
                ``generator``.
            UnsupportedModel: torch cannot differentiate the loss twice (a ``ValueError`` too).
        """
        self._check_held_out(held_out)
        check_generator(generator)
        step_rule: StepRule = self._ascend
        if self.path == "random":
            if generator is None:
                raise ValueError("path='random' draws its directions: pass generator=torch.Generator() as well")
            step_rule = partial(self._move_as_far, RandomDirections(generator))
        settings = NullSpaceSettings(
            self.threshold,
            self.cap,
            self.relative_cap,
            rule=self.step,
            guard=self.guard,
            tolerance=self.tolerance,
            objective_params=self.objective_params,
            differentiable=self.steps > 0,
            steps=min(self.steps, 1) if self.path == "random" else self.steps,
            frozen_forward=self.forward == "once" and self.steps > 0 and self._objective.of_norm,
            memory=self.memory,
            divisible=self._objective.of_norm,
        )
        return run_null_space_event(
            "nullspace",
            settings,
            step_rule,
            model,
            batches,
            loss_fn,
            constraint,
            callback,
            keep_modes,
            held_out,
            process_group,
            on_shards=self.path == "ascent" and isinstance(self.objective, str),  # others may reduce whole gradients
        )

    def _check_held_out(self, held_out: Iterable[Any] | None) -> None:
        if self.path == "least_drift" and held_out is None:
            raise ValueError(
                "path='least_drift' measures its move on other batches: pass held_out=[batch, ...] as well"
            )
        if self.path != "least_drift" and held_out is not None:
            raise ValueError(f"held_out is for path='least_drift', and the path is {self.path!r}")
        if held_out is not None:
            check_iterable("held_out", held_out)

    def _ascend(self, problem: AscentProblem) -> Ascent:
        """Up to K steps along the objective's projected gradient (equation 5)."""
        objective, loss, parameters = self._objective, problem.loss, problem.parameters

        def direction(point: Point) -> list[Tensor]:
            projected = problem.project(objective.direction(loss, point, parameters))
            return projected if objective.ascended else [-part for part in projected]

        unit: float | None = None
        if self.lr_unit == "relative":
            unit = loss.group.lengths(joint_norm(map(torch.Tensor.detach, parameters)))[0] or 1.0
        if self.path in ("shortest", "least_drift") and unit is not None:
            return ascend_shortest(
                loss,
                parameters,
                direction,
                longest=self.lr * self.steps * unit,
                steps=self.steps if parameters else 0,
                cap=problem.cap,
                slope=objective.slope,
                start=problem.start,
                shape=problem.shape,
                monitor=problem.monitor,
                metric=problem.metric,
            )
        return ascend(
            loss,
            parameters,
            direction,
            lr=self.lr,
            steps=self.steps if parameters else 0,
            cap=problem.cap,
            rule=self.step,
            start=problem.start,
            score=lambda point: objective.score(loss, point),
            slope=objective.slope,
            unit=unit,
            shape=problem.shape,
            monitor=problem.monitor,
        )

    def _move_as_far(self, directions: RandomDirections, problem: AscentProblem) -> Ascent:
        """One move along a random direction, as long as that of the ascent, or up to the cap."""
        start = problem.start or problem.loss.point(self.steps > 0)
        first = StepRecord(0, float(start.loss), start.norm)
        if problem.monitor(first):
            return Ascent(start, start, 0, Stopped.CALLBACK, [first])
        drawn = problem.project_drawn(directions.draw(problem))
        line = Line(problem.parameters, drawn, problem.loss.known)
        ascent = self._ascend(replace(problem, start=start, monitor=unmonitored))
        if not ascent.steps or ascent.stopped == Stopped.NOT_FINITE:
            return ascent
        moved = [now.detach() - before for now, before in zip(problem.parameters, line.start, strict=True)]
        length, unit = problem.loss.group.lengths(joint_norm(moved), joint_norm(drawn))
        return move_along(problem, start, line, length / (unit or 1.0))
