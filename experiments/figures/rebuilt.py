"""The task and the model of a finished run, rebuilt in order to measure them.

This module imports torch: subjects import it inside their measuring functions.
"""

from __future__ import annotations

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
from teleport._change_of_basis.loading import load_state
from teleport._files import tensor_file
from teleport._files.tensor_file import InvalidFile


@dataclass
class RebuiltRun:
    """A run's resolved configuration, its folder and task, and its model as initialised, in evaluation mode."""

    config: Config
    folder: Path
    task: Task
    model: nn.Module
    device: torch.device

    def load_trained(self) -> None:
        """Load the run's final parameters into the model, which takes its teleported form if the run's had.

        Raises:
            UserError: the file cannot be read, is damaged or is of another model.
        """
        path = self.folder / "model.pt"
        try:
            self.model, _ = load_state(self.model, tensor_file.read(path).value)
        except (OSError, InvalidFile) as error:
            why = error if isinstance(error, InvalidFile) else "cannot be read"
            raise UserError(f"'{path}' {why}; delete the folder and make the run again") from error

    def teleport_batch(self, samples: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """The first batch of the run's first teleport: ``samples`` of its training split, inputs in ``dtype``."""
        order = torch.randperm(len(self.task.train), generator=generator(self.config.seed, Stream.TELEPORT, 0))
        inputs, targets = self.task.train.batch(order[:samples].to(self.device))
        return inputs.to(dtype), targets

    @property
    def loss_fn(self) -> Callable[[nn.Module, Any], Tensor]:
        """The task's loss with the signature that the library takes: ``loss_fn(model, batch)``."""
        return lambda model, batch: self.task.loss(model(batch[0]), batch[1])


def rebuild(run: FigureRun) -> RebuiltRun:
    """Build the task and the model of a finished run; the model is initialised as in the run.

    Raises:
        UserError: as in building them for the run.
    """
    assert run.folder is not None
    config = resolve(run.config)
    device = pick_device(config.machine.device)
    task = build_task(config.data, device)
    seed_everything(config.seed)
    model = build_model(config.model, task.spec, config.data.name).to(device).eval()
    return RebuiltRun(config, run.folder, task, model, device)
