"""The teleports of a run: their steps, their batches, and the optimizer state after them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from experiments.configuration.config import Config
from experiments.errors import UserError
from experiments.run.batches import draw_batches
from experiments.run.clock import Clock, counts_processor
from experiments.run.methods import Teleporter
from experiments.run.processes import ALONE, Processes
from experiments.run.seeding import Stream, generator
from experiments.tasks import Task
from teleport import Auto, ProgressLine, Schedule, TeleportReport, UnsupportedModel, transport_state

Part = tuple[Tensor, Tensor, int]
"""Inputs and targets of one process, and the number of samples of all."""


class Teleports:
    """The events of one run.

    Args:
        teleporter: the method, ``None`` for a run without teleports.
        schedule: the optimizer steps before which the method is called.
        task: its training split gives the batches.
        config: of the run.
        device: of the task.
        processes: that teleport together, each on its part of a batch.
    """

    def __init__(
        self,
        teleporter: Teleporter | None,
        schedule: Schedule,
        task: Task,
        config: Config,
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        self.teleporter = teleporter
        self.schedule = schedule
        self.task = task
        self.config = config
        self.device = device
        self.processes = processes

    @property
    def steps(self) -> list[int]:
        """The optimizer steps before which there is an event, in order."""
        return [] if self.teleporter is None else self.schedule.steps

    def due(self, step: int) -> int | None:
        """The number (from 0) of the event before the optimizer step ``step``, or ``None``."""
        return None if self.teleporter is None else self.schedule.event_before(step)

    def check(self, model: nn.Module) -> None:
        """Teleport a copy of ``model`` on two samples, to check before the training that the method supports it.

        Raises:
            UserError: it cannot teleport this model; the sentence says why.
        """
        if self.steps:
            few = torch.arange(min(2, len(self.task.train)), device=self.device)
            method = self.teleporter.method if isinstance(self.teleporter, Auto) else self.teleporter
            batches = [(*self.task.train.batch(few), len(few))]
            options = {"held_out": batches} if getattr(self.config.teleport, "held_out_batches", 0) else {}
            options |= {"process_group": "alone"} if self.processes.size > 1 else {}
            options |= self._generator(method, 0)
            self._call(copy.deepcopy(model), batches, method, **options)

    def affordable(self, step: int, events: int) -> bool:
        """Whether the method's budget allows one more event before optimizer step ``step``, after ``events`` events."""
        return not isinstance(self.teleporter, Auto) or self.teleporter.affordable(step, events)

    def make(self, event: int, model: nn.Module, line: ProgressLine | None = None) -> tuple[float, TeleportReport]:
        """Draw the batches of an event and teleport ``model`` on them; returns the seconds of both and the report.

        ``line`` shows the event on the terminal.
        """
        settings = self.config.teleport
        clock = Clock(self.device, counts_processor(self.device, self.config.training.compile))
        clock.start()
        options: dict[str, Any] = {} if line is None else {"callback": line}
        batches = self._draw(Stream.TELEPORT, event, settings.batches)
        if constraint_batches := getattr(settings, "constraint_batches", 0):
            options["constraint"] = self._draw(Stream.CONSTRAINT, event, constraint_batches)
        if held_out_batches := getattr(settings, "held_out_batches", 0):
            options["held_out"] = self._draw(Stream.HELD_OUT, event, held_out_batches)
        options |= self._generator(self.teleporter, event)
        if isinstance(self.teleporter, Auto):
            size = self.config.training.batch_size
            batches = batches[:1] + self._draw(Stream.TRIAL, event, self.teleporter.needed, size)
        report = self._call(model, batches, self.teleporter, **options)
        return clock.stop(), report

    def _generator(self, method: Teleporter | None, event: int) -> dict[str, torch.Generator]:
        """The generator of a method that draws random numbers, one per event, so that a resumed run draws the same."""
        if not hasattr(method, "generator") and getattr(method, "path", "") != "random":
            return {}
        return {"generator": generator(getattr(self.config.teleport, "seed", self.config.seed), Stream.DRAW, event)}

    def _draw(self, stream: Stream, event: int, batches: int, samples: int | None = None) -> list[Part]:
        """This process's parts of batches, each with the number of samples of the whole."""
        source = generator(self.config.seed, stream, event)
        samples = samples or self.config.teleport.samples
        drawn = draw_batches(self.task.train, batches, samples, source, self.device)
        return [(*self.processes.part(batch), len(batch[0])) for batch in drawn]

    def _call(self, model: nn.Module, batches: list[Part], method: Teleporter | None, **options: Any) -> TeleportReport:
        assert method is not None

        def loss_fn(model: nn.Module, batch: Part) -> Tensor:
            inputs, targets, samples = batch
            return self.processes.weighted(self.task.loss(model(inputs), targets), samples, len(inputs))

        try:
            return method(model, batches, loss_fn, **options)
        except UnsupportedModel as error:
            names = (self.config.teleport.name, self.config.model.name)
            raise UserError("teleport={} does not go with model={}: {}".format(*names, error)) from error


class OptimizerMemory:
    """The state of an optimizer (momentum, squared gradients), and its change at a teleport.

    Args:
        optimizer: as it was built, before any step.
        rule: keep, reset or transported (``teleport.optimizer_state``).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rule: str) -> None:
        self.optimizer = optimizer
        self.rule = rule
        self.fresh = copy.deepcopy(optimizer.state_dict()["state"])

    def after(self, report: TeleportReport) -> None:
        """Apply the rule after the teleport of ``report``."""
        if self.rule == "reset":
            fresh = copy.deepcopy(self.fresh)  # the optimizer writes into the tensors that it loads
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": fresh})
        elif self.rule == "transported":
            if report.carriers is None:  # nothing moved, or not linearly
                return
            try:
                transport_state(self.optimizer, report)
            except ValueError as error:
                raise UserError(f"teleport.optimizer_state=transported: {error}") from error
