"""A run set up as by the suite's runner, from overrides of the command line, with parts of it ready to be timed."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import nn

from experiments.configuration.config import Config, register
from experiments.configuration.options import CONF
from experiments.configuration.teleport_config import TeleportConfig
from experiments.configuration.validate import resolve
from experiments.data.registry import build_task
from experiments.models.registry import build_model
from experiments.run import methods
from experiments.run.batches import steps_per_epoch
from experiments.run.seeding import seed_everything
from experiments.run.teleporting import Teleports
from experiments.run.training import Training
from teleport import Schedule, TeleportReport


def configuration(overrides: Sequence[str], device: torch.device) -> Config:
    """The configuration of ``python run.py OVERRIDES``, on ``device`` and without a progress bar.

    Raises:
        UserError: a value is missing or out of range.
    """
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", [*overrides, "machine.progress=false"])
    composed.machine.device = str(device)
    return resolve(composed)


class Prepared:
    """The task and the model of a run before its first teleport, after the configured warm-up.

    Args:
        config: of the run.
        device: of the task and the model.

    Raises:
        UserError: the data are not available, or the model does not fit them.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.task = build_task(config.data, device)
        seed_everything(config.seed)
        self.model: nn.Module = build_model(config.model, self.task.spec, self.task.name).to(device)
        if config.teleport.warmup_steps:
            self._train(self.model, config.teleport.warmup_steps)

    def event(self, settings: TeleportConfig) -> Callable[[], TeleportReport]:
        """The first event of a run with these settings, on a copy of the model, ready to be called once."""
        model, config = copy.deepcopy(self.model), dataclasses.replace(self.config, teleport=settings)
        optimizer = methods.build_optimizer(config.optimizer, model)
        steps = config.training.epochs * steps_per_epoch(self.task.train, config.training)
        budget = methods.TrainingBudget(optimizer, steps, config.training.batch_size)
        teleports = Teleports(methods.build_teleporter(settings, budget), Schedule(), self.task, config, self.device)
        return lambda: teleports.make(0, model)[1]

    def steps(self, count: int) -> Callable[[], float]:
        """``count`` optimizer steps on a copy of the model, ready to be called once; the call returns their seconds."""
        model = copy.deepcopy(self.model)
        return lambda: self._train(model, count)

    def steps_in_place(self, count: int) -> None:
        """``count`` optimizer steps on the model itself."""
        self._train(self.model, count)

    def _train(self, model: nn.Module, steps: int) -> float:
        """Train ``model`` in the suite's loop and return the seconds of its steps by the clock of a run's curve."""
        loop = dataclasses.replace(self.config.training, max_steps=steps, eval_every=steps, eval_samples=1)
        config = dataclasses.replace(self.config, training=loop)
        optimizer = methods.build_optimizer(config.optimizer, model)
        teleports = Teleports(None, Schedule(), self.task, config, self.device)
        with tempfile.TemporaryDirectory() as folder:
            training = Training(self.task, model, optimizer, teleports, config, Path(folder), self.device)
            return training.run().training_seconds
