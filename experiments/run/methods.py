"""From a configuration to an optimizer, a teleporter and a schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from experiments.configuration.config import AdagradConfig, AdamConfig, OptimizerConfig, SGDConfig
from experiments.configuration.teleport_config import (
    AutoConfig,
    BalanceConfig,
    ChangeOfBasisConfig,
    LevelSetConfig,
    NullSpaceConfig,
    OrbitConfig,
    PseudoTeleportConfig,
    RandomNullSpaceConfig,
    RescalingConfig,
    SymmetryConfig,
    TeleportConfig,
)
from experiments.errors import UserError, one_of
from experiments.models.point import rotation_action
from teleport import (
    Auto,
    Balance,
    ChangeOfBasis,
    LevelSet,
    NullSpace,
    Orbit,
    PseudoTeleport,
    RandomNullSpace,
    Rescaling,
    Schedule,
    Symmetry,
    Teleporter,
)
from teleport._auto.auto import EVENT_GRADIENTS

# name -> (the dataclass of its keys, which are arguments of the torch class, and the class)
OPTIMIZERS: dict[str, tuple[type[OptimizerConfig], Callable[..., torch.optim.Optimizer]]] = {
    "sgd": (SGDConfig, torch.optim.SGD),
    "momentum": (SGDConfig, torch.optim.SGD),
    "adagrad": (AdagradConfig, torch.optim.Adagrad),
    "adam": (AdamConfig, torch.optim.Adam),
    "adamw": (AdamConfig, torch.optim.AdamW),
}


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer ``config.name`` over the model's parameters that require a gradient.

    Raises:
        UserError: an unknown name, keys that exclude each other, or a model without trainable parameters.
    """
    schema, optimizer = _look_up("optimizer", config, OPTIMIZERS)
    arguments = {key.name: getattr(config, key.name) for key in fields(schema) if key.name != "name"}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise UserError("the model has no parameter that requires a gradient, so the optimizer has nothing to train")
    try:
        return optimizer(parameters, **arguments)
    except ValueError as error:  # mistakes in several keys, such as nesterov without momentum
        raise UserError(f"optimizer={config.name}: {error}") from error


OF_THE_LOOP = {field.name for field in fields(TeleportConfig)} | {"constraint_batches", "held_out_batches"}
"""Keys of a teleport that say when it happens and on what, and are no arguments of the method."""


def _orbit(action: str, **arguments: Any) -> Orbit:
    """``teleport.Orbit`` with the action that a configuration names."""
    return Orbit(rotation_action(action), **arguments)


# name -> (the dataclass of its keys, which but for those of the loop are arguments of the method, and the method)
TELEPORTERS: dict[str, tuple[type[TeleportConfig], Callable[..., Teleporter | None]]] = {
    "none": (TeleportConfig, lambda: None),
    "nullspace": (NullSpaceConfig, NullSpace),
    "random": (RandomNullSpaceConfig, RandomNullSpace),
    "levelset": (LevelSetConfig, LevelSet),
    "rescaling": (RescalingConfig, Rescaling),
    "balance": (BalanceConfig, Balance),
    "symmetry": (SymmetryConfig, Symmetry),
    "orbit": (OrbitConfig, _orbit),
    "auto": (AutoConfig, Auto),
    "change_of_basis": (ChangeOfBasisConfig, ChangeOfBasis),
    "pseudo_teleport": (PseudoTeleportConfig, PseudoTeleport),
}

DIAGONAL = ["rescaling", "balance", "change_of_basis"]
"""Methods that multiply parameters by factors, which an optimizer's state can be carried through."""


@dataclass(frozen=True)
class TrainingBudget:
    """The training that a method is tried on and takes its share of.

    Attributes:
        optimizer: of the training.
        total_steps: of the training, ``None`` if they are not known yet.
        batch_size: of a training step.
    """

    optimizer: torch.optim.Optimizer
    total_steps: int | None
    batch_size: int

    def of_auto(self, samples: int) -> dict[str, Any]:
        """The arguments of ``teleport.Auto`` besides its settings, for a move on a batch of ``samples``.

        A batch of k times the training batch's size is taken to cost k / 2 times as much, but no less.
        """
        gradients = EVENT_GRADIENTS * max(1.0, samples / (2 * self.batch_size))
        return {"optimizer": self.optimizer, "total_steps": self.total_steps, "event_gradients": gradients}


def build_teleporter(config: TeleportConfig, budget: TrainingBudget | None = None) -> Teleporter | None:
    """The teleport method ``config.name``, or ``None`` if it is ``none``.

    Args:
        config: of the method.
        budget: of the training, for a method that is tried on it; ``None`` for one of its own, of no limit.

    Raises:
        UserError: an unknown name, a value out of its range, or an optimizer state that the method cannot transport.
    """
    schema, method = _look_up("teleport", config, TELEPORTERS)
    arguments = {key.name: getattr(config, key.name) for key in fields(schema) if key.name not in OF_THE_LOOP}
    if config.name == "auto":
        budget = budget or TrainingBudget(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), None, config.samples)
        arguments |= budget.of_auto(config.samples)
    if config.optimizer_state == "transported" and config.name not in DIAGONAL:
        raise UserError(
            f"teleport.optimizer_state=transported needs a method that multiplies parameters by factors "
            f"({', '.join(DIAGONAL)}), which teleport={config.name} is not; take keep or reset"
        )
    if isinstance(config, NullSpaceConfig) and (config.path == "least_drift") != (config.held_out_batches > 0):
        raise UserError(
            f"teleport.held_out_batches={config.held_out_batches} does not go with teleport.path={config.path}: "
            "least_drift needs at least 1, and other paths take 0"
        )
    try:
        return method(**arguments)
    except ValueError as error:
        raise UserError(f"teleport={config.name}: {error}") from error


def build_schedule(config: TeleportConfig, steps_per_epoch: int) -> Schedule:
    """When to teleport, in a run of ``steps_per_epoch`` optimizer steps per epoch.

    Raises:
        UserError: a negative epoch or step.
    """
    try:
        return Schedule(config.epochs, config.at_steps, config.warmup_steps, steps_per_epoch)
    except ValueError as error:
        raise UserError(f"teleport={config.name}: {error}") from error


def _look_up(group: str, config: Any, table: dict[str, tuple[type, Any]]) -> tuple[type, Any]:
    """The entry of ``config.name``; the configuration must be of its dataclass."""
    if config.name not in table:
        raise one_of(group, config.name, list(table))
    entry = table[config.name]
    if not isinstance(config, entry[0]):
        raise UserError(
            f"{group}.name={config.name} does not go with the keys of another; choose {group}={config.name} instead"
        )
    return entry
