"""Pseudo-teleportation: the control of a change of basis: a random move of the same length (Armenta et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport._arguments import check_call, check_generator
from teleport._change_of_basis.change_of_basis import ChangeOfBasis
from teleport._change_of_basis.common_move import draw_alike, report_of, tell_of_step
from teleport._change_of_basis.multiplication import multiplications_of
from teleport._change_of_basis.sampling import Sampling
from teleport._change_of_basis.teleported import unwrapped
from teleport._engine.contract import LossFn
from teleport._engine.event import Event
from teleport._engine.finiteness import not_finite_at_any
from teleport._engine.layer_reports import LayerReport
from teleport._engine.parameter_statistics import ParameterStatistics
from teleport._engine.progress import Callback
from teleport._engine.report import BatchReport, TeleportReport
from teleport._engine.run_event import run_event
from teleport._engine.statuses import Stopped
from teleport._engine.transaction import Snapshot, not_accepted, violation
from teleport._processes.ranks import Processes
from teleport._tracing.evaluations import Modes, modes_of


class PseudoTeleport:
    """Move in a random direction as far as a random change of basis V would: ``W + |V - W| u / |u|``, u normal.

    The direction is over all parameters that the change of basis would move; the loss is not kept, but a move to values
    that are not finite is undone. Arguments are
    those of :class:`teleport.ChangeOfBasis`, whose lengths it takes, draw by draw.
    """

    def __init__(
        self,
        range: float = 0.9,
        sampling: Sampling = "intra",
        center: float = 1.0,
        activations: Literal["keep", "teleport"] = "keep",
        seed: int = 0,
    ) -> None:
        self.range = range
        self.sampling = sampling
        self.center = center
        self.activations = activations
        self.seed = seed
        self._change_of_basis = ChangeOfBasis(range, sampling, center, activations, seed=seed)
        self.generator = self._change_of_basis.generator

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
    ) -> TeleportReport:
        """Move ``model`` in place; arguments, errors and what comes back as it was are those of
        :class:`teleport.ChangeOfBasis`.

        Args:
            model: see there.
            batches: see there.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            generator: drawn from in place of the method's own; on the CPU.
            callback: called per batch before the move and after it (step 1), see ``teleport.Callback``.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.
        """

        check_generator(generator)
        check_call(model, batches, loss_fn, callback)

        def work(event: Event) -> tuple[list[BatchReport], list[LayerReport]]:
            return self._move(event, modes, generator or self.generator)

        modes = modes_of(model)
        return run_event(
            "pseudo-teleportation",
            model,
            batches,
            loss_fn,
            work,
            callback,
            keep_modes=keep_modes,
            process_group=process_group,
        )

    def _move(
        self, event: Event, modes: Modes, generator: torch.Generator
    ) -> tuple[list[BatchReport], list[LayerReport]]:
        quiver = self._change_of_basis.find(event.model, lambda: event.evaluate(event.batches[0]), modes)
        draw_alike(event.group, quiver, generator)
        change = self._change_of_basis.sample(quiver, generator)
        named = dict(unwrapped(event.model).named_parameters())
        parameters = [named[name] for name in multiplications_of(quiver).moved(change.tau)]
        event.moved |= set(parameters)
        statistics = ParameterStatistics(named)
        objectives = [event.batch_loss(batch, event.trainable) for batch in event.batches]
        before = [objective.point(differentiable=False) for objective in objectives]
        stopped = tell_of_step(event.monitor, 0, [(float(each.loss), each.norm) for each in before])
        refused = not_finite_at_any(objectives, before, parameters)
        acted, after, snapshot = False, before, Snapshot(parameters)
        if not stopped and not any(refused):
            directions = [_normal(parameter, generator) for parameter in parameters]
            acted = _add(parameters, directions, change.distance(event.model))
            after = [objective.point(differentiable=False) for objective in objectives]
            stopped = acted and tell_of_step(event.monitor, 1, [(float(each.loss), each.norm) for each in after])
        reports = [
            report_of(acted, stopped, float(old.loss), old.norm, float(new.loss), new.norm)
            for old, new in zip(before, after, strict=True)
        ]
        if not not_accepted(reports, refused, Stopped.NOT_FINITE) and acted:
            ends = [(each.loss_before, each.loss_after, each.gradient_norm_after) for each in reports]
            if not_accepted(reports, [violation(*end, math.inf, snapshot) for end in ends]):
                snapshot.restore()
        return reports, statistics.close(event.moved)


@torch.no_grad()
def _add(parameters: list[nn.Parameter], direction: list[Tensor], length: float) -> bool:
    """Move the parameters by ``length`` along ``direction``; whether they moved."""
    norm = sum(float(each.double().square().sum()) for each in direction) ** 0.5
    for parameter, each in zip(parameters, direction, strict=True):
        parameter.add_(each.to(parameter.dtype), alpha=length / norm)
    return bool(parameters) and length > 0


def _normal(parameter: nn.Parameter, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, drawn on the CPU, so that devices agree."""
    precision = torch.promote_types(parameter.dtype, torch.float32)
    return torch.randn(parameter.shape, generator=generator, dtype=precision).to(parameter.device)
