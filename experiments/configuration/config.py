"""The space of runs, typed: one dataclass per kind of data set, model, optimizer and teleport method.

Data sets, models and methods have separate files (``data_config.py`` and the like). Those of methods are derived from
the library's signatures by ``scripts/derive_schemas.py``.
A YAML file of a group names the dataclass that checks it in its defaults list (``/schema/data@_here_: image``).
Importing this file must stay cheap: no torch here, so that ``run.py --help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from experiments.configuration import data_config, model_config, scalars, teleport_config, tracking_config
from experiments.configuration.data_config import DataConfig, Flag
from experiments.configuration.model_config import ModelConfig
from experiments.configuration.teleport_config import TeleportConfig
from experiments.configuration.tracking_config import TrackingConfig

RESULTS_VERSION = 3
"""Raised when a change of the code changes the numbers of a run, so that old runs are not taken for new ones."""


@dataclass
class OptimizerConfig:
    """Keys that every optimizer has."""

    name: str = MISSING
    lr: float = MISSING
    weight_decay: float = 0.0


@dataclass
class SGDConfig(OptimizerConfig):
    """``torch.optim.SGD``."""

    momentum: float = 0.0
    nesterov: Flag = False


@dataclass
class AdagradConfig(OptimizerConfig):
    """``torch.optim.Adagrad``."""

    eps: float = 1e-10


@dataclass
class AdamConfig(OptimizerConfig):
    """``torch.optim.Adam`` and ``AdamW``."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8


@dataclass
class Plateau:
    """``ReduceLROnPlateau`` on the training loss of each evaluation."""

    factor: float | None = None  # None: the rate stays; else it is multiplied by this
    patience: int = 10  # evaluations without a better loss that are waited for


@dataclass
class TrainingConfig:
    """The loop."""

    epochs: int = MISSING
    max_steps: int | None = None
    batch_size: int = MISSING
    last_batch: str = "keep"  # of an epoch, if it is short: keep | drop | spread
    eval_every: int | None = None  # steps; None: at the end of each epoch
    eval_samples: int | None = 10000  # training samples that the training loss is measured on; None: all
    plateau: Plateau = field(default_factory=Plateau)
    lr_warmup_steps: int = 0  # the first steps, over which the learning rate rises linearly to optimizer.lr
    compile: Flag = False  # training steps by torch.compile
    precision: str = "float32"  # float32 | bfloat16, the latter by autocast
    channels_last: Flag = False  # images with their channels innermost


@dataclass
class MachineConfig:
    """Where and with what a run is computed. None of it changes what is computed, and none of it is hashed."""

    runs: str = "runs"
    results: str = "results"  # where figures go
    device: str = "auto"  # auto | cpu | cuda | xpu | mps | cuda:N | xpu:N
    threads: int | None = None  # None: as torch chooses
    jobs: int = 1  # runs side by side, where a command makes several
    checkpoint_seconds: float = 60.0
    progress: Flag = True


@dataclass
class FigureConfig:
    """A figure: the runs it stands on, what is measured on each of them, and how that is drawn."""

    title: str = MISSING
    claim: str = MISSING  # what the paper says it shows, in our words
    reduced: str = ""  # how it is smaller than the paper's
    runs: list[dict[str, Any]] = field(default_factory=list)  # grids: override -> value, or list of values to sweep
    measure: dict[str, Any] = field(default_factory=lambda: {"name": "curves"})  # a name and its options
    draw: dict[str, Any] = MISSING  # a name and its options


@dataclass
class Config:
    """One run."""

    data: DataConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    teleport: TeleportConfig = MISSING
    training: TrainingConfig = field(default_factory=TrainingConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = 0
    scale: str = "quick"
    rates: Any = None  # the table of rates, conf/rates/; read by interpolation, never part of a run's hash
    figure: Any = None  # a figure to make instead of one run


KINDS: dict[str, dict[str, type]] = {
    "data": data_config.KINDS,
    "model": model_config.KINDS,
    "optimizer": {"sgd": SGDConfig, "adagrad": AdagradConfig, "adam": AdamConfig},
    "teleport": teleport_config.KINDS,
    "tracking": tracking_config.KINDS,
    "figure": {"figure": FigureConfig},
}
"""Group -> what a YAML file's ``/schema/<group>@_here_`` names -> the dataclass that checks it."""

KEYS_OF_RUNS: dict[str, list[type]] = {
    **{group: list(kinds.values()) for group, kinds in KINDS.items() if group != "figure"},
    "training": [TrainingConfig],
    "machine": [MachineConfig],
}
"""Group -> the dataclasses of the keys that a run may have."""


def register() -> None:
    """Make the dataclasses known to Hydra as ``schema/<group>/<kind>``."""
    scalars.register()
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for group, nodes in KINDS.items():
        for name, node in nodes.items():
            store.store(group=f"schema/{group}", name=name, node=node)
