"""What the integrations share: events before the epochs of a training that another package runs."""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from teleport import LossFn, Teleporter, TeleportReport, transport_state
from teleport._arguments import check_choice, check_whole
from teleport._engine.state_reset import reset_state

OPTIMIZER_STATES = ("keep", "reset", "transported")


class Events:
    """Events before the first step of some epochs, each on the first batches of the training data.

    Args:
        teleporter: the method.
        loss_fn: ``loss_fn(model, batch)``, in the precision of the parameters.
        epochs: from 0, before whose first step a teleport happens.
        batches: per event, and per process if there are several.
        optimizer_state: ``"keep"`` as it is, ``"reset"`` to that of a new optimizer, or ``"transported"`` by
            :func:`teleport.transport_state`, for methods that move parameters by factors, permutations or matrices.

    Attributes:
        reports: of the events so far, by epoch.

    Raises:
        ValueError: an epoch below 0, no batch, or an unknown ``optimizer_state``.
        TypeError: an epoch or ``batches`` is no whole number.
    """

    def __init__(
        self, teleporter: Teleporter, loss_fn: LossFn, epochs: Iterable[int], batches: int, optimizer_state: str
    ) -> None:
        self.teleporter, self.loss_fn, self.epochs, self.batches = teleporter, loss_fn, sorted(set(epochs)), batches
        for epoch in self.epochs:
            check_whole(epochs=epoch)
        check_whole(batches=batches)
        if batches < 1:
            raise ValueError(f"batches must be at least 1, got {batches}")
        check_choice("optimizer_state", optimizer_state, OPTIMIZER_STATES)
        self.optimizer_state = optimizer_state
        self.reports: dict[int, TeleportReport] = {}

    def before(
        self,
        epoch: int,
        model: nn.Module,
        loader: Iterable[Any],
        optimizers: Iterable[torch.optim.Optimizer],
        move: Callable[[Any], Any] = lambda batch: batch,
    ) -> TeleportReport | None:
        """The event before ``epoch``, if due, on batches of ``loader`` that ``move`` puts in place; its report."""
        if epoch not in self.epochs:
            return None
        batches = [move(batch) for batch in first_batches(loader, self.batches)]
        with unwrapped(model):
            report = self.teleporter(model, batches, self.loss_fn)
        self.reports[epoch] = report
        for optimizer in optimizers:
            if self.optimizer_state == "reset":
                reset_state(optimizer)
            elif self.optimizer_state == "transported":
                transport_state(optimizer, report)
        return report


def first_batches(loader: Iterable[Any], count: int) -> list[Any]:
    """The first ``count`` batches of ``loader``, which the training will see as it would without this call."""
    with undisturbed(loader):
        batches = list(itertools.islice(iter(loader), count))
    if hasattr(loader, "gradient_state") and hasattr(loader, "end"):  # of Accelerate, which else holds it for active
        loader.end()
    return batches


@contextlib.contextmanager
def undisturbed(loader: Iterable[Any]) -> Iterator[None]:
    """Put the random states back that the order of ``loader`` and its data may come from."""
    own = {getattr(part, "generator", None) for part in (loader, getattr(loader, "sampler", None))}
    generators = [each for each in own if isinstance(each, torch.Generator)]
    states, python = [each.get_state() for each in generators], random.getstate()
    numpy = sys.modules.get("numpy")
    numbers = numpy.random.get_state() if numpy is not None else None
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        if numpy is not None:
            numpy.random.set_state(numbers)


@contextlib.contextmanager
def unwrapped(model: nn.Module) -> Iterator[None]:
    """Call ``model`` without the autocast that Accelerate puts around its forward pass.

    ``Accelerator.unwrap_model(model, keep_fp32_wrapper=False)`` would do so for the rest of the training.
    """
    inner = getattr(model, "module", model) if isinstance(model, nn.parallel.DistributedDataParallel) else model
    own = inner.__dict__.get("_original_forward")
    if own is None:
        yield
        return
    wrapped, inner.forward = inner.forward, own
    try:
        yield
    finally:
        inner.forward = wrapped
