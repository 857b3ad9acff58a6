"""Virtual training from the current parameters: optimizer steps, the loss on other batches, and all of it undone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from teleport._engine.contract import LossFn
from teleport._engine.transaction import ModelSnapshot
from teleport._processes.group import ALONE, Group
from teleport._tracing.replicas import is_sharded
from teleport._tracing.undisturbed import ModelState
from teleport._undone import always_undone

TrainStep = Callable[[nn.Module, Any], None]
"""``train_step(model, batch)``: one step of the caller's training, for example with clipped gradients."""


class Rollout:
    """Training steps that are undone: the losses they would lead to, from wherever the parameters are.

    Every call starts from the same random state, so that dropout is the same in calls that are compared. Parameters,
    buffers, modes, gradients, the optimizer's state and its settings, and torch's random state are what they were
    after each call, also after an exception.

    Args:
        model: trained in training mode, measured in evaluation mode.
        optimizer: of some or all of its parameters; learning-rate schedulers stay where they are.
        loss_fn: ``loss_fn(model, batch)``, a scalar tensor.
        steps: the batches to train on, one step per batch.
        probes: the batches to measure the loss on afterwards.
        train_step: one step of training; ``None`` for the gradient of ``loss_fn`` and a step of ``optimizer``.
        group: of processes that train together, each on batches of its own. The wrapper of replicas or shards averages
            the gradients, without one this class does.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: LossFn,
        steps: Sequence[Any],
        probes: Sequence[Any],
        train_step: TrainStep | None = None,
        group: Group = ALONE,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss_fn = loss_fn
        self.steps = list(steps)
        self.probes = list(probes)
        self._train_step = train_step or self._plain_step
        self._group = group

    def losses(self, rate: float = 1.0) -> list[float]:
        """The loss on each probe after the steps from the current parameters.

        Args:
            rate: a factor on the learning rate of every parameter group.
        """
        parameters, optimizer = ModelSnapshot(self.model), OptimizerState(self.optimizer)
        state = ModelState(self.model)

        def undo() -> None:
            parameters.restore()
            optimizer.restore()
            state.restore_after_error()

        return always_undone(lambda: self._train_and_measure(rate), undo)

    def _train_and_measure(self, rate: float) -> list[float]:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] * rate
        for batch in self.steps:
            self._train_step(self.model, batch)
        self.model.eval()
        with torch.no_grad():
            return self._group.mean_of([float(self.loss_fn(self.model, batch)) for batch in self.probes])

    def _plain_step(self, model: nn.Module, batch: Any) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            self.loss_fn(model, batch).backward()  # type: ignore[no-untyped-call]
        averaged = isinstance(model, nn.parallel.DistributedDataParallel) or any(map(is_sharded, model.parameters()))
        if not (self._group.alone or averaged):
            self._average_gradients(model)
        self.optimizer.step()

    def _average_gradients(self, model: nn.Module) -> None:
        """Give each parameter the mean gradient over the group, zero on ranks that have none."""
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        found = self._group.gathered({name for name, parameter in named.items() if parameter.grad is not None})
        used = [parameter for name, parameter in named.items() if name in set().union(*found)]
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in used]
        for parameter, mean in zip(used, self._group.mean(gradients), strict=True):
            parameter.grad = mean.detach()


class OptimizerState:
    """The state of an optimizer and the settings of its parameter groups, as they are now."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._state = {key: copy.deepcopy(value) for key, value in optimizer.state.items()}
        self._groups = [
            {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]

    def restore(self) -> None:
        """Set the optimizer back; may be called again."""
        self.optimizer.state.clear()
        self.optimizer.state.update({key: copy.deepcopy(value) for key, value in self._state.items()})
        for group, held in zip(self.optimizer.param_groups, self._groups, strict=True):
            for key in [key for key in group if key != "params" and key not in held]:
                del group[key]
            group.update(copy.deepcopy(held))
