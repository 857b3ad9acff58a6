"""A run's task and model, put together again to be looked at."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.configuration.config import Config
from experiments.configuration.validate import resolve
from experiments.data.registry import build_task
from experiments.errors import UserError
from experiments.figures.runs import FigureRun
from experiments.models.registry import build_model
from experiments.run.runner import pick_device
from experiments.run.seeding import Stream, generator, seed_everything
from experiments.tasks import Task


@dataclass(frozen=True)
class Subject:
    """A run's resolved configuration, its task, and its model as it was initialised, in evaluation mode."""

    config: Config
    folder: Path
    task: Task
    model: nn.Module
    device: torch.device

    def load_trained(self) -> None:
        """Put the parameters into the model that the run ended with.

        Raises:
            UserError: they cannot be read.
        """
        path = self.folder / "model.pt"
        try:
            self.model.load_state_dict(torch.load(path, map_location=self.device, weights_only=True))
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise UserError(f"'{path}' cannot be read; delete the folder and make the run again") from error

    def teleport_batch(self, samples: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """The first batch of the run's first teleport: ``samples`` of its training split, inputs in ``dtype``."""
        order = torch.randperm(len(self.task.train), generator=generator(self.config.seed, Stream.TELEPORT, 0))
        inputs, targets = self.task.train.batch(order[:samples].to(self.device))
        return inputs.to(dtype), targets

    @property
    def loss_fn(self) -> Callable[[nn.Module, Any], Tensor]:
        """The task's loss, as the library takes it."""
        return lambda model, batch: self.task.loss(model(batch[0]), batch[1])


def subject_of(run: FigureRun) -> Subject:
    """Build the task and the model of a run that is made; the model is initialised as the run's was.

    Raises:
        UserError: as building them for the run.
    """
    assert run.folder is not None
    config = resolve(run.config)
    device = pick_device(config.machine.device)
    task = build_task(config.data, device)
    seed_everything(config.seed)
    model = build_model(config.model, task.spec, config.data.name).to(device).eval()
    return Subject(config, run.folder, task, model, device)
