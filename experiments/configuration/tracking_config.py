"""Where a run is told besides its own folder. None of it changes what is computed, and none of it is hashed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrackingConfig:
    """No tracking."""

    name: str = "none"


@dataclass
class TensorBoardTracking(TrackingConfig):
    """Event files for TensorBoard."""

    name: str = "tensorboard"
    folder: str | None = None  # None: tensorboard/ in the folder of the run


@dataclass
class WandbTracking(TrackingConfig):
    """Weights & Biases."""

    name: str = "wandb"
    project: str = "teleport"
    mode: str = "offline"  # offline | online | disabled


@dataclass
class MlflowTracking(TrackingConfig):
    """MLflow."""

    name: str = "mlflow"
    uri: str | None = None  # of the tracking server or store; None: the file mlflow.db in machine.runs
    experiment: str = "teleport"


KINDS: dict[str, type[TrackingConfig]] = {
    "none": TrackingConfig,
    "tensorboard": TensorBoardTracking,
    "wandb": WandbTracking,
    "mlflow": MlflowTracking,
}
