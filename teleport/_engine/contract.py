"""The contract of all teleport methods: how they are called, what they report, and the arguments that they share.

A method is an object that is called as ``method(model, batches, loss_fn)`` (:class:`Teleporter`), moves the
parameters of ``model`` in place and returns a :class:`teleport.TeleportReport`. Its settings are arguments of its
class. :class:`Teleporter` documents the settings and arguments that methods share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, distributed, nn

from teleport._engine.progress import Callback, Progress, ProgressLine
from teleport._engine.report import StepRecord, TeleportReport
from teleport._processes.group import ALONE, Group
from teleport._processes.ranks import Processes

LossFn: TypeAlias = Callable[[nn.Module, Any], Tensor]
"""``loss_fn(model, batch)``: the loss of ``model`` on one batch, a scalar tensor. A batch is whatever it takes."""


@runtime_checkable
class Teleporter(Protocol):
    """A teleport method: an object that is called to move the parameters of a model.

    Shared settings. Each method has those that apply to it, with these meanings:

    - ``cap`` (float or ``None``): the largest gradient norm, over all trainable parameters. A batch whose norm is
      above it takes no step. ``None`` is no cap.
    - ``relative_cap`` (float or ``None``): a cap as a factor on the mean gradient norm over the event's batches,
      taken before its first step. With both caps the smaller one holds. It is 2 unless it is set: no published method
      has one, and without any cap the gradient norm can grow by orders of magnitude in one event.
    - ``memory`` (bytes, text such as ``"2GB"``, or ``None``): a budget for the peak of an event beyond what the
      process held before it: weights, ``.grad`` and batches do not count. A method that has it evaluates the loss in
      the first of these ways that fits: with a record of the whole evaluation (``forward="once"``), with the whole
      graph of a gradient, with products of the Hessian by tangents, or so that one part of the model at a time (an
      element of a ``ModuleList`` or ``Sequential``) and one piece of the batch at a time is held, and computed again
      for derivatives. Pieces are taken only if the losses of all batches are means of those of their pieces.
      ``report.memory`` says which. The sizes are upper bounds from one evaluation of the first batch and from
      measured factors, not a limit that is enforced. Without a budget a model of 64 MiB of trainable parameters or
      more takes tangents, or without them its parts one at a time. A method is refused by a ``ValueError`` if no way
      fits.
    - ``step`` (how a step is bounded): ``"cap"`` shortens a step so that the gradient norm ends at most at the cap,
      within 2 % below it if the whole step would pass it, and so that the objective does not get worse. ``"fixed"``
      takes each step whole, and stops once the norm is above the cap (Wu et al. 2025, Algorithm 1).
    - ``guard``: ``"transaction"`` undoes the steps on a batch if they changed its loss by more than
      ``tolerance * max(1, |loss|)``, or made the loss, the gradient norm or a parameter infinite or NaN. The batch's
      report then has ``accepted=False``, and a ``reason``. ``"none"`` keeps all steps.
    - ``tolerance`` (float above 0): of the guard, relative to ``max(1, |loss|)``.
    - ``lr`` (float above 0): the length of a step. ``lr_unit``: ``"relative"`` for the norm of what moves (the weights,
      or the identity of a group), which means the same on every model; ``"absolute"`` for the method's direction, as
      published. ``steps`` (int from 0): at most so many steps per batch.

    Shared arguments of a call:

    - ``generator``: the source of all random numbers that a method draws itself. ``RandomNullSpace``,
      ``ChangeOfBasis`` and ``PseudoTeleport`` draw; the other methods are deterministic, accept it and do not use it.
      torch's global random state is never used, and comes back as it was.
    - ``callback``: called with a :class:`Progress` per batch and per step, see :data:`Callback`.

    - ``keep_modes``: by default the loss is evaluated in evaluation mode: dropout off, batch norm on its running
      statistics. A model that returns its loss or auxiliary outputs in training mode only (detection models of
      torchvision) needs ``keep_modes=True``: modules stay in their modes, all evaluations draw the same random numbers,
      and buffers are restored before each and at the end. The level set is then that of the training loss with these
      random numbers.

    - ``process_group``: if ``torch.distributed`` is initialised, all processes (those of a
      ``DistributedDataParallel``, or those of the given group) call the method at once, each with its replica of the
      model and as many batches of its own. The loss of the event is the mean of their losses, and gradients, the layer
      inputs and the decisions are those of one process with the joined batches. Every rank ends with the same
      parameters. ``"alone"`` is a teleport of this process, which the others do not take part in. With several
      processes the forward pass is run at each step.

    ``isinstance(x, Teleporter)`` says only that ``x`` can be called; a type checker compares the signature.
    """

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
        """Move the parameters of ``model`` in place, and report.

        Args:
            model: any module that the method supports; parameters are restored after an exception.
            batches: at least one; each is what ``loss_fn`` takes.
            loss_fn: the loss, see :data:`LossFn`.
            generator: the source of the random numbers that the method draws.
            callback: called per batch and per step.
            keep_modes: whether the loss is evaluated in the modes of the modules.
            process_group: the processes that move their replicas together.
        """


class Monitor:
    """Calls the callback of one event, and holds whether it asked to stop.

    Args:
        method: the name of the method.
        batches: the number of batches of the event.
        callback: the caller's, or ``None``.
        group: of processes with one event; if the callback of any asks to stop, it ends for all.

    Attributes:
        active: whether there is a callback, in any process, that is to see each gradient norm and may stop the event; a
            line of progress alone is none, so that it costs no evaluation and no exchange.
        stopped: whether it returned ``True``.
    """

    def __init__(self, method: str, batches: int, callback: Callback | None, group: Group = ALONE) -> None:
        self.method = method
        self.batches = batches
        self.rank = _rank(group)
        self._group = group
        own = callback
        if isinstance(callback, ProgressLine):
            own = callback.callback
            if not callback.shown or self.rank != 0:
                callback = own
            else:
                callback.begin(method, batches)
        self._callback = callback
        self.active = group.any(own is not None)
        self.stopped = False

    def tell(self, batch: int, steps: int, record: StepRecord) -> bool:
        """Tell of one step on one batch; whether the event is to end."""
        if self._callback is not None:
            where = (self.method, batch, self.batches, record.step, steps)
            answer = self._callback(Progress(*where, record.loss, record.gradient_norm, self.rank))
            self.stopped = self.stopped or answer is True
        if self.active:
            self.stopped = self._group.any(self.stopped)
        return self.stopped

    def on(self, batch: int, steps: int) -> StepMonitor:
        """The monitor of the steps on one batch."""
        return lambda record: self.tell(batch, steps, record)


StepMonitor: TypeAlias = Callable[[StepRecord], bool]
"""Tells the callback of one step; ``True`` if the event is to end."""


def unmonitored(record: StepRecord) -> bool:
    """The monitor of steps without a callback."""
    return False


def _rank(group: Group) -> int:
    """Of this process in the group, or among all if it teleports alone."""
    if not group.alone or not (distributed.is_available() and distributed.is_initialized()):
        return group.rank
    return distributed.get_rank()
