"""The point of smallest norm, or of best conditioned paths, among all positive rescalings of a network's channels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from teleport._arguments import check_call, check_choice, check_finite, check_positive
from teleport._balance.attained import pin_unattained
from teleport._balance.log_sum import ClassVariables, LogSum
from teleport._balance.newton import Minimum, minimum
from teleport._balance.path_magnitudes import path_magnitudes
from teleport._balance.report import BalanceReport
from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.basis_event import BasisEvent
from teleport._change_of_basis.common_move import agree_on_quiver
from teleport._change_of_basis.factor_move import FactorMove
from teleport._engine.contract import LossFn
from teleport._engine.loss_call import check_signature
from teleport._engine.progress import Callback
from teleport._processes.group import Group
from teleport._processes.ranks import Processes, group_of
from teleport._quiver.quiver import Quiver
from teleport._quiver.rows import in_rows
from teleport._tracing.outputs import Forward, call_model

Criterion = Literal["minimal_norm", "equal_norm", "path_conditioning"]


@dataclass(frozen=True)
class Balance:
    """Multiply hidden channels by the positive factors at which a criterion on the parameters is smallest.

    The factors are those of :class:`teleport.ChangeOfBasis` with ``activations="keep"``, found on any model: the
    function stays on all data. No loss and no data are needed but one batch to evaluate the model on. The criterion is
    convex in the logarithms of the factors, so that the minimum is the same from every rescaling of the network, up to
    rounding of the parameters; it is found by Newton's method in float64. A channel whose incoming or outgoing weights
    are zero has no minimum and keeps the factor 1.

    Args:
        criterion: ``"minimal_norm"``, the smallest p-norm of all parameters that scale, biases included; for p = 2 that
            is the penalty of weight decay. ``"equal_norm"``, the same without biases: the incoming and the outgoing
            weights of each channel have equal p-norms (ENorm; Stock et al. 2019). ``"path_conditioning"``, the
            path magnitude matrix nearest to a multiple of the identity, by the log-det divergence of its diagonal
            (PathCond; Lebeurrier et al. 2026), of trainable parameters; for networks of linear maps, batch norm,
            pooling and positively homogeneous activations.
        p: of the norms, above 0.
        guard: ``"transaction"`` undoes a move that changed the loss of a batch, or its outputs, as of
            :class:`teleport.ChangeOfBasis`; ``"none"`` keeps it.
        tolerance: of the guard.

    Raises:
        ValueError: an argument outside its range.
    """

    criterion: Criterion = "minimal_norm"
    p: float = 2.0
    guard: Literal["transaction", "none"] = "transaction"
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_choice("criterion", self.criterion, get_args(Criterion))
        check_positive(p=self.p, tolerance=self.tolerance)
        check_finite(p=self.p)
        check_choice("guard", self.guard, ("transaction", "none"))

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss_fn: LossFn | None = None,
        forward: Forward | None = None,
        *,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
        keep_modes: bool = False,
        process_group: Processes = None,
    ) -> BalanceReport:
        """Balance ``model`` in place; ``report.group`` has the factors, for :func:`teleport.transport_state`.

        Args:
            model: any module. Modes, buffers, ``requires_grad``, ``.grad`` and torch's global random state come back as
                they were. After an exception the parameters do, too.
            batches: at least one; what they are for is said at :class:`teleport.ChangeOfBasis`.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor, measured before and after; ``None``: the outputs are
                compared instead.
            forward: ``forward(model, batch)``, one evaluation, used without a loss and for the paths; by default the
                model called with the batch, or with the first entry of a tuple or list.
            generator: not used, as no random numbers are drawn; all methods accept it.
            callback: called per batch before the move and after it (step 1), see ``teleport.Callback``.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.

        Raises:
            ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such parameter.
            UnsupportedModel: ``criterion="path_conditioning"`` of a model with a function that no path leads through.
        """
        check_call(model, batches, loss_fn or call_model, callback, keep_modes)
        check_signature(loss_fn or forward or call_model, "loss_fn" if loss_fn else "forward")
        event, group = BasisEvent(model, False), group_of(process_group, model)
        found: list[_Balanced] = []

        def choose(quiver: Quiver, batch: Any, group: Group) -> BasisChange:
            agree_on_quiver(group, quiver)
            found[:] = [_Balanced(self, event.model, quiver, batch, forward or call_model, group)]
            return BasisChange(quiver, found[0].tau())

        given = ("keep", self.guard, self.tolerance, callback, keep_modes, group)
        shards = self.criterion != "path_conditioning"  # whose terms are of paths through whole layers
        move = FactorMove("balance", BalanceReport, event, choose, *given, on_shards=shards)
        report = move.run(model, batches, loss_fn, forward)
        found[0].enter(report)
        return report


class _Balanced:
    """The minimum of a criterion over the factors of a quiver."""

    def __init__(
        self, method: Balance, model: nn.Module, quiver: Quiver, batch: Any, forward: Forward, group: Group
    ) -> None:
        self.method, self.group = method, group
        quiver = dataclasses.replace(quiver, scaled=in_rows(group, quiver.scaled))
        on_model = next((each.device for each in model.parameters()), torch.device("cpu"))
        device = next((each.parameter.device for each in quiver.scaled.values()), on_model)
        self.variables = ClassVariables(quiver, device)
        masses, self.offset = self._masses(model, quiver, batch, forward)
        (count,) = group.totals([sum(int((mass > 0).sum()) for mass in masses.values())])
        self.count = int(count)
        self.function = LogSum(quiver, masses, self.variables, group)
        if method.criterion == "path_conditioning":
            present = {parameter: (mass > 0).double() for parameter, mass in masses.items()}
            numbers = LogSum(quiver, present, self.variables)
            gradient, _, total = numbers.around(numbers.slope)
            self.function.slope = gradient / max(total, 1.0)
        else:
            pin_unattained(self.function)
        self.minimum: Minimum = minimum(self.function)
        start, end = torch.zeros_like(self.minimum.x), self.minimum.x
        self.values = self._value(start), self._value(end)
        self.imbalances = self.function.imbalance(start), self.function.imbalance(end)

    def _masses(
        self, model: nn.Module, quiver: Quiver, batch: Any, forward: Forward
    ) -> tuple[Mapping[nn.Parameter, Tensor], float]:
        """The term of each element, and what the divergence of path conditioning takes off."""
        if self.method.criterion == "path_conditioning":
            trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
            masses = path_magnitudes(model, batch, forward, trainable)
            return masses, sum(float(mass[mass > 0].log().sum()) for mass in masses.values())
        makers = {name.partition("[")[0] for name in quiver.channel_classes}
        norm_of = {
            name: each.parameter
            for name, each in quiver.scaled.items()
            if self.method.criterion == "minimal_norm" or name in makers
        }
        p = self.method.p
        return {parameter: parameter.detach().abs().double() ** p for parameter in norm_of.values()}, 0.0

    def tau(self) -> Tensor:
        """``[classes]``, on the CPU; the mean over the processes, whose rounding may differ."""
        log_tau = self.variables.of_classes(self.minimum.x)
        if self.method.criterion != "path_conditioning":
            log_tau = -2 / self.method.p * log_tau
        (mean,) = self.group.mean([log_tau])
        return mean.exp().cpu()

    def enter(self, report: BalanceReport) -> None:
        """The numbers of the criterion, into the report."""
        report.criterion_before, report.criterion_after = self.values
        report.imbalance_before, report.imbalance_after = self.imbalances
        report.newton_steps = self.minimum.steps

    def _value(self, x: Tensor) -> float:
        if self.method.criterion != "path_conditioning":
            return float(self.function.total(x) ** (1 / self.method.p))
        if not self.count:
            return 0.0
        return self.count * (self.function.value(x) - math.log(self.count)) - self.offset
