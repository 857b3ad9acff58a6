"""Positive rescaling of hidden channels (Armenta et al. 2023): a symmetry of the network function on all data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teleport._arguments import check_call, check_choice, check_limits, check_positive, check_steps
from teleport._change_of_basis.report import GroupReport
from teleport._engine.contract import LossFn
from teleport._engine.event import Event
from teleport._engine.layer_reports import LayerReport
from teleport._engine.on_shards import ShardedModel
from teleport._engine.progress import Callback
from teleport._engine.report import BatchReport, FactorReport
from teleport._engine.run_event import run_event
from teleport._engine.sharded import with_whole_parameters
from teleport._processes.ranks import Processes, group_of
from teleport._rescaling.group_event import GroupEvent
from teleport._rescaling.rescaling_event import RescalingEvent, Settings
from teleport._tracing.evaluations import modes_of


@dataclass(frozen=True)
class Rescaling(Settings):
    """Multiply hidden channels by positive factors tau, and divide the weights that read them by the same factors.

    The weights and the bias of output channel i of a linear layer, a convolution or the affine part of a normalisation
    are multiplied by tau_i; the columns of every layer that reads channel i are divided by tau_i. ReLU, LeakyReLU,
    pooling, flattening and dropout are positively homogeneous, so the model computes the same function on all data.
    Channels that are added have one common factor. Keys have the inverse factors of their queries; the factors of
    values are divided out in the output projection. Channels that enter any other function (tanh, a normalisation), and
    channels that are both inputs and outputs of one weight, have tau = 1; the report gives the reason.

    The gradient norm is known in closed form for every tau (Armenta et al. 2023, Theorem 5.1). A batch costs one
    gradient, and a second one to measure the result. The norm has no upper bound, hence ``bound`` and ``cap``.
    Rescaling is a baseline: it raises the gradient norm without any change of the function.

    Args:
        mode: ``"ascent"`` raises the gradient norm of each batch in turn. ``"balance"`` moves to the minimum of the
            mean squared norm over all batches; the ``trace`` of each batch then has the root of this mean.
        bound: on ``|log tau|``, over the whole event.
        lr: the largest change of a ``log tau`` in one step of the ascent.
        steps: the largest number of ascent steps per batch, or of sweeps of the balancing.
        step: ``"cap"`` shortens a step that would pass the cap, so that the gradient norm ends within 2 % below it;
            ``"fixed"`` takes the whole step and stops after it.
        cap: the largest gradient norm of the ascent, ``None`` for none.
        relative_cap: a cap as a factor on the mean gradient norm before the event; see :class:`teleport.Teleporter`.
        guard: ``"transaction"`` undoes factors that changed a loss by more than ``tolerance * max(1, |loss|)``, by
            rounding or by a dependence that tracing cannot see; ``"none"`` keeps them.
        tolerance: of the guard, relative to ``max(1, |loss|)``.
        group: ``"scaling"``, the factors above. ``"general"``: instead of them general linear matrices, where
            :func:`teleport.find_symmetries` finds any: per head of queries and keys and of values and outputs, between
            two linear maps, and one factor per plane of a rotary embedding. ``"all"``: both at once. A matrix ``M`` on
            one side multiplies gradients by ``M^-T``, so that the norm is known in closed form, too; a step costs a
            few passes over the gradients. ``bound`` then is on the logarithms of the singular values, whose ratio is
            at most ``exp(2 bound)``. Rotations and permutations are left out, as they keep the gradient norm. The
            report is a ``GroupReport``, whose ``change`` is what acted.

    Raises:
        ValueError: an argument outside its range, or ``mode="balance"`` with another group than ``"scaling"``.
    """

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("ascent", "balance"))
        check_choice("group", self.group, ("scaling", "general", "all"))
        if self.mode == "balance" and self.group != "scaling":
            raise ValueError(
                f'mode="balance" is of group="scaling" alone, got group={self.group!r}; take mode="ascent"'
            )
        check_positive(bound=self.bound)
        check_steps(self.lr, self.steps, self.step)
        check_limits(self.cap, self.relative_cap, self.guard, self.tolerance)

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
    ) -> FactorReport:
        """Teleport ``model`` in place; ``report.group`` has the factors of each parameter that was scaled.

        Args:
            model: any module. Modes, buffers, ``requires_grad``, ``.grad`` and torch's global random state are
                restored. After an exception the parameters are restored as well.
            batches: what ``loss_fn`` takes.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
            generator: not used, as no random numbers are drawn; all methods accept it.
            callback: called per batch and per step, see ``teleport.Callback``.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.

        Raises:
            ValueError: there are no batches or no trainable parameters, or the loss is not a scalar or depends on no
                trainable parameter.
        """
        group: dict[nn.Parameter, Tensor] = {}

        done: list[GroupEvent] = []

        def work(event: Event) -> tuple[list[BatchReport], list[LayerReport]]:
            if self.group == "scaling":
                return RescalingEvent(self, event, group).run()
            done.append(GroupEvent(self, event, modes))
            return done[-1].run()

        def moved() -> FactorReport:
            report: FactorReport = run_event(
                "rescaling",
                model,
                batches,
                loss_fn,
                work,
                callback,
                FactorReport if self.group == "scaling" else GroupReport,
                gradients=relative,
                keep_modes=keep_modes,
                process_group=processes,
                on_shards=self.group == "scaling",
            )
            if isinstance(report, GroupReport):
                report.model, report.change, report.symmetries = model, done[-1].change, done[-1].symmetries
            else:
                report.group = group
            return report

        check_call(model, batches, loss_fn, callback, keep_modes)
        relative, processes = self.relative_cap is not None, group_of(process_group, model)
        modes = modes_of(model)
        if self.group == "scaling" and ShardedModel.of(processes, model) is not None:
            return moved()
        return with_whole_parameters(processes, model, moved)
