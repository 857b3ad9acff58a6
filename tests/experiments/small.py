"""Small real runs on the embedded digits, composed as the command line does."""

from __future__ import annotations

import copy
import functools
import os
import signal
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import nn

from experiments.configuration.config import register
from experiments.errors import UserError
from experiments.tasks import Spec

CONF = Path(__file__).parents[2] / "conf"
SMALL = ["data.train_samples=300", "data.test_samples=100", "model.widths=[24]", "training.epochs=2"]
TELEPORT = ["teleport=nullspace", "teleport.epochs=[0,1]", "teleport.batches=2", "teleport.samples=10"]
SMALL_TELEPORT = [*TELEPORT, "teleport.steps=2"]


def small(runs: Path, *overrides: str) -> DictConfig:
    """A run of a second: 300 digits, one hidden layer of 24, two epochs."""
    return composed(f"machine.runs={runs}", *SMALL, *overrides)


def custom(runs: Path, factory: str, *overrides: str) -> DictConfig:
    """The same with a model of one's own, from this file."""
    kept = [override for override in SMALL if not override.startswith("model.")]
    model = ["model=custom", f"model.factory=tests.experiments.small:{factory}"]
    return composed(f"machine.runs={runs}", *kept, *model, *overrides)


def composed(*overrides: str) -> DictConfig:
    """A configuration as the command line composes it, of one's own to change."""
    return copy.deepcopy(_composed(*overrides))


@functools.cache
def _composed(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def with_dropout(spec: Spec, width: int = 24) -> nn.Module:
    """A model whose training draws from the global generator."""
    values = torch.Size(spec.input_shape).numel()
    hidden = [nn.Flatten(), nn.Linear(values, width), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*hidden, nn.Linear(width, spec.outputs))


def breaks(spec: Spec) -> nn.Module:
    """A model that has no finite loss from its 5th training batch on."""
    return _Breaks(spec)


def bug(spec: Spec) -> nn.Module:
    """A factory with a mistake of its own."""
    raise ZeroDivisionError(spec.kind)


def watched(spec: Spec) -> nn.Module:
    """A model of which the file of the environment variable TRAININGS says how often it was trained with which seed.

    With seed 1 the process is killed in each training, with seed 2 in the first one; with seed 3 there is no model.
    """
    return _Watched(spec, torch.initial_seed())


class _Watched(nn.Module):
    def __init__(self, spec: Spec, seed: int) -> None:
        super().__init__()
        if seed == 3:
            raise UserError("no model with seed 3")
        self.head = nn.Linear(torch.Size(spec.input_shape).numel(), spec.outputs)
        self.seed, self.told, self.file = seed, False, Path(os.environ["TRAININGS"])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training and not self.told:
            self.told = True
            with self.file.open("a") as file:
                file.write(f"{self.seed}\n")
            if self.seed == 1 or (self.seed == 2 and self.file.read_text().split().count("2") == 1):
                os.kill(os.getpid(), signal.SIGKILL)
        return self.head(inputs.flatten(1))


class _Breaks(nn.Module):
    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.head = nn.Linear(torch.Size(spec.input_shape).numel(), spec.outputs)
        self.batches = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.head(inputs.flatten(1))
        self.batches += self.training
        return outputs * float("nan") if self.training and self.batches >= 5 else outputs
