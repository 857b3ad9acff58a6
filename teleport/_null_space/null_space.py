"""Null-space gradient projection (Wu et al. 2025, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_choice, check_limits, check_steps, check_threshold
from teleport._engine.ascent import Ascent, Point, ascend
from teleport._engine.contract import Callback, LossFn
from teleport._engine.objectives import TeleportObjective, objective_of
from teleport._engine.report import TeleportReport
from teleport._null_space.ascent_problem import AscentProblem
from teleport._null_space.driver import NullSpaceSettings, run_null_space_event


@dataclass(frozen=True)
class NullSpace:
    """Raise the gradient norm by moving weights where the layers' inputs do not see it.

    For each batch: find the space that each layer's inputs span, then take ``steps`` steps of gradient ascent on
    ``1/2 |grad L|^2`` (or another ``objective``) with each layer's gradient projected on the complement. At
    ``threshold`` 1 no layer's output changes on the batch, so neither does the loss; the loss on other data does
    (``report.drift``).

    Use it early in training, where layers are wider than the rank of what they see. It cannot help where no layer has
    null dimensions (many positions, narrow layers: the report says so), where the gradient norm is above the cap
    already, or where the loss must not change on other data.

    Args:
        lr: eta_tel, the length of a step along the projected gradient of the objective.
        steps: K, steps a batch.
        threshold: tau in (0, 1]; 1 protects the numerical rank, below 1 the leading directions with that share of the
            inputs' energy (equation 3), and the loss moves a little.
        step: ``"cap"`` shortens a step so that the gradient norm lands on the cap and the objective never gets worse;
            ``"fixed"`` is the paper's rule: steps of full length until the norm is found above the cap.
        cap: the largest gradient norm, ``None`` for none.
        relative_cap: a cap as a factor on the mean gradient norm over the event's batches before it. With both, the
            smaller holds.
        guard: ``"transaction"`` puts a batch's steps back where they changed the loss that was to stay (the batch's,
            or the constraint's where there is one) by more than ``tolerance * max(1, |loss|)``, or made anything
            non-finite; ``"none"`` keeps them, as the paper does.
        tolerance: of the guard, relative.
        objective_params: the gradient norm is over ``"all"`` trainable parameters or over the ``"moved"`` ones only.
        objective: what is raised or lowered: a name in ``teleport.OBJECTIVES``, or one of your own. The cap stays one
            on the gradient norm.
        objective_scale: the rate of ``loss_after_step`` or the radius of ``sharpness``, where not their default.
        forward: ``"once"`` runs the forward pass once a batch where nothing that it computes changes: at threshold 1,
            on the batch's own constraint, for objectives of the gradient norm alone. Steps in between then have the
            loss of the batch's start in its ``trace``, and a layer's ``surviving`` share is that of the event's first
            batch. ``"each"`` runs it at each step. Both take the same steps, but for rounding; where the first
            direction says otherwise, or the evaluation cannot be taken apart, it is run at each step.

    Raises:
        ValueError: an argument outside its range.
    """

    lr: float = 1.0
    steps: int = 8
    threshold: float = 1.0
    step: Literal["cap", "fixed"] = "cap"
    cap: float | None = None
    relative_cap: float | None = None
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3
    objective_params: Literal["all", "moved"] = "all"
    objective: str | TeleportObjective = "squared_gradient_norm"
    objective_scale: float | None = None
    forward: Literal["once", "each"] = "once"

    def __post_init__(self) -> None:
        check_steps(self.lr, self.steps, self.step)
        check_threshold(self.threshold)
        check_limits(self.cap, self.relative_cap, self.guard, self.tolerance)
        check_choice("objective_params", self.objective_params, ("all", "moved"))
        check_choice("forward", self.forward, ("once", "each"))
        objective_of(self.objective, self.objective_scale)  # refuses what it does not know

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
    ) -> TeleportReport:
        """Teleport ``model`` in place.

        Args:
            model: any module. Its trainable parameters may move; modes, buffers, ``requires_grad``, ``.grad`` and
                torch's global random state come back as they were. After an exception the parameters do, too. Of
                a ``DistributedDataParallel`` pass the ``module``, whose gradients nobody waits for.
            batches: what ``loss_fn`` takes, one level set each; B batches of n samples.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            constraint: batches whose layer inputs are protected, all together, instead of each batch's own; an
                objective on other data than the constraint frees the first layer too.
            generator: accepted as of every method, and not used: nothing is drawn.
            callback: called per batch and per step, see ``teleport.Callback``.

        Raises:
            ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such
                parameter; :class:`teleport.UnsupportedModel`, one, where torch cannot differentiate the loss twice.
        """
        moves = NullSpaceSettings(
            self.threshold,
            self.cap,
            self.relative_cap,
            rule=self.step,
            guard=self.guard,
            tolerance=self.tolerance,
            objective_params=self.objective_params,
            differentiable=self.steps > 0,
            steps=self.steps,
            frozen_forward=self.forward == "once" and self.steps > 1 and self._objective.of_norm,
        )
        return run_null_space_event("nullspace", moves, self._ascend, model, batches, loss_fn, constraint, callback)

    def _ascend(self, problem: AscentProblem) -> Ascent:
        """Up to K steps along the objective's projected gradient (equation 5)."""
        objective, loss, parameters = self._objective, problem.loss, problem.parameters

        def direction(point: Point) -> list[Tensor]:
            projected = problem.project(objective.direction(loss, point, parameters))
            return projected if objective.ascended else [-part for part in projected]

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
            monitor=problem.monitor,
        )
