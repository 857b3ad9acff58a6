"""Teleportation by a change of basis of the neurons (Armenta et al., *Neural Teleportation*, 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from teleport._arguments import check_call, check_choice, check_generator, check_positive, seeded
from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.basis_event import BasisEvent
from teleport._change_of_basis.common_move import draw_alike
from teleport._change_of_basis.factor_move import FactorMove
from teleport._change_of_basis.finding import quiver_for
from teleport._change_of_basis.group_change import GroupName, check_group, group_move
from teleport._change_of_basis.report import ChangeOfBasisReport
from teleport._change_of_basis.sampling import Sampling, check_sampling, draw_tau
from teleport._engine.contract import LossFn
from teleport._engine.loss_call import check_signature
from teleport._engine.progress import Callback
from teleport._processes.group import Group
from teleport._processes.ranks import Processes, group_of
from teleport._quiver.quiver import Freedom, Quiver
from teleport._tracing.evaluations import Modes, modes_of
from teleport._tracing.outputs import Forward, call_model
from teleport._tracing.undisturbed import ModelState, undisturbed


class ChangeOfBasis:
    """Multiply every hidden channel by a random tau and its readers by the inverse: the same function, other weights.

    Channels that are added or otherwise combined carry one tau. Channels that enter a standardisation, or a function
    without a rule, are pinned to 1. The report counts free, shared and pinned channels, with the reasons.

    With ``activations="keep"`` only parameters change: channels that enter ReLU and its like carry ``|tau|``, those
    that enter another activation carry 1. With ``"teleport"`` any activation f with a tau that does not pass through it
    is computed as ``tau f(x / tau)``, by the model ``report.model``, with which training continues.

    The function stays; the further course of an optimizer changes. The gradient is divided by the factors
    that the weights are multiplied by (Theorem 5.1), so it grows if weights shrink; unlike
    :class:`teleport.Rescaling`, the method does not maximise it. A regulariser on the weights is not kept.

    Args:
        range: the CoB-range sigma.
        sampling: the distribution of tau, drawn independently for each class of channels: ``"intra"`` is U(1 - range,
            1 + range), ``"inter"`` an equal mix of that and of U(-1 - range, -1 + range), ``"positive"`` U(0, range),
            ``"negative"`` U(-range, 0), ``"centered"`` U(center - range, center + range). ``|tau|`` is at least 0.001.
        center: of ``"centered"``.
        activations: ``"keep"`` or ``"teleport"``.
        guard: ``"transaction"`` undoes a change that moved the loss of a batch by more than
            ``tolerance * max(1, |loss|)``, or, without a loss, an output by more than ``tolerance`` times the largest;
            ``"none"`` keeps it.
        tolerance: of the guard; of a model in half precision at least 16 of its rounding errors.
        seed: of ``generator``, the common source of successive calls.
        group: ``"scaling"``, the factors above, or a group of :func:`teleport.find_symmetries`: ``"permutation"``
            (with signs before odd functions), ``"orthogonal"``, ``"general"`` (matrices of singular values from
            ``1 - range``, at least 0.05, to ``1 + range``), ``"all"``. Statistics of batch norm move along.
        fold_norms: whether weights of norms, and layer scales, are folded into the linear maps beside them first, so
            that rotations of what they multiply act; of another group than ``"scaling"``. ``report.symmetries.folded``
            names them.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        range: float = 0.9,
        sampling: Sampling = "intra",
        center: float = 1.0,
        activations: Literal["keep", "teleport"] = "keep",
        guard: Literal["transaction", "none"] = "transaction",
        tolerance: float = 1e-3,
        seed: int = 0,
        group: GroupName = "scaling",
        fold_norms: bool = False,
    ) -> None:
        check_sampling(sampling, range, center)
        check_choice("activations", activations, ("keep", "teleport"))
        check_choice("guard", guard, ("transaction", "none"))
        check_positive(tolerance=tolerance)
        check_group(group, activations, fold_norms)
        self.group = group
        self.fold_norms = fold_norms
        self.range = range
        self.sampling = sampling
        self.center = center
        self.activations = activations
        self.guard = guard
        self.tolerance = tolerance
        self.seed = seed
        self.generator = seeded(seed)

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
    ) -> ChangeOfBasisReport:
        """Teleport ``model``; ``report.model`` computes its function afterwards, ``report.change`` has acted.

        Args:
            model: any module. Modes, buffers, ``requires_grad``, ``.grad`` and torch's global random state come back as
                they were. After an exception the parameters do, too.
            batches: the first shows the model's structure (with others, while parts of the model are not reached), all
                of them whether its function was kept. The channels that a part which no batch reaches may read stay.
            loss_fn: ``loss_fn(model, batch)``, a scalar tensor; measured before and after, gradient norm included.
                ``None``: the outputs are compared instead, and losses and norms of the report are not numbers.
            forward: ``forward(model, batch)``, one evaluation, used without a loss; by default the model called with
                the batch, or with the first entry of a tuple or list; with a mapping as keyword arguments.
            generator: the source of the factors in place of the method's own; on the CPU.
            callback: called per batch before the change and after it (step 1), see ``teleport.Callback``. If it ends
                the event before the change, nothing moves. Without a loss, losses and norms are NaN.
            keep_modes: see :class:`teleport.Teleporter`.
            process_group: see :class:`teleport.Teleporter`.

        Raises:
            ValueError: no batches, a loss that is no scalar or depends on no trainable parameter, or no such parameter;
                or activations are to be teleported in a model that is not called itself.
            UnsupportedModel: or in one that calls other activations in training than in evaluation.
        """
        check_generator(generator)
        check_call(model, batches, loss_fn or call_model, callback, keep_modes)
        check_signature(loss_fn or forward or call_model, "loss_fn" if loss_fn else "forward")
        event, group = BasisEvent(model, self.activations == "teleport"), group_of(process_group, model)
        if self.group != "scaling":
            return group_move(self, model, batches, loss_fn, forward, generator, callback, keep_modes, group)

        def choose(quiver: Quiver, _: Any, group: Group) -> BasisChange:
            draw_alike(group, quiver, generator or self.generator)
            return self.sample(quiver, generator)

        given = (self.activations, self.guard, self.tolerance, callback, keep_modes, group)
        shards = self.activations == "keep"
        move = FactorMove("change of basis", ChangeOfBasisReport, event, choose, *given, on_shards=shards)
        return move.run(model, batches, loss_fn, forward)

    def capture(
        self, model: nn.Module, batch: Any, loss_fn: LossFn | None = None, forward: Forward | None = None
    ) -> Quiver:
        """The quiver of ``model``, which serves any number of :meth:`sample`; arguments as in a call."""
        evaluate = loss_fn or forward or call_model
        modes = modes_of(model)

        def traced(state: ModelState) -> Quiver:
            return self.find(model, lambda: state.evaluate(lambda: evaluate(model, batch)), modes, (), [batch])

        return undisturbed(model, traced)

    def sample(self, quiver: Quiver, generator: torch.Generator | None = None) -> BasisChange:
        """A random change of basis, of ``generator`` or of the method's own; its ``apply`` has no guard."""
        drawn = draw_tau(len(quiver.freedom), self.sampling, self.range, self.center, generator or self.generator)
        tau = torch.where(quiver.freedom.cpu() == Freedom.POSITIVE, drawn.abs(), drawn)
        return BasisChange(quiver, quiver.complete(tau.to(quiver.freedom.device)).cpu())

    def find(
        self,
        model: nn.Module,
        evaluate: Callable[[], Any],
        modes: Modes,
        others: Sequence[Callable[[], Any]] = (),
        batches: Iterable[Any] = (),
    ) -> Quiver:
        """The quiver of ``model`` as traced in ``evaluate``; see ``quiver_for``."""
        return quiver_for(self.activations, model, evaluate, modes, others, list(batches))
