"""The space of runs, typed: one dataclass a kind of data set, model, optimizer and teleport method.

A YAML file of a group names the dataclass that checks it in its defaults list (``/schema/data@_here_: image``).
Importing this file must stay cheap: no torch here, so that ``run.py --help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, SI

from experiments.teleport_config import (
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

RESULTS_VERSION = 2
"""Raised when a change of the code changes the numbers of a run, so that old runs are not taken for new ones."""

# --------------------------------------------------------------------------------------------------------- data


@dataclass
class Extent:
    """How much of a data set a scale uses; ``None`` is all of it."""

    epochs: int = MISSING
    train_samples: int | None = None
    test_samples: int | None = None
    max_steps: int | None = None  # ends a run before its epochs do; for data whose epochs are long
    eval_every: int | None = None  # steps between evaluations; None: once an epoch
    eval_samples: int | None = 10000  # training samples that the training loss is measured on; None: all
    teleport_batches: int = 8  # B


@dataclass
class DataConfig:
    """Keys that every data set has."""

    name: str = MISSING
    root: str = "${oc.env:TELEPORT_DATA,data}"  # machine-only
    extents: dict[str, Extent] = field(default_factory=dict)  # scale -> extent; never part of a run's hash
    train_samples: int | None = SI("${.extents.${scale}.train_samples}")  # None: all; else of one fixed shuffle
    test_samples: int | None = SI("${.extents.${scale}.test_samples}")
    batch_size: int = 32
    eval_every: int | None = SI("${.extents.${scale}.eval_every}")


@dataclass
class ImageData(DataConfig):
    """Images with class labels. ``crop`` pads by that many pixels and crops at random, ``flip`` mirrors at random."""

    image_size: int | None = None  # None: as stored
    crop: int = 0
    flip: bool = False
    as_sequence: bool = False  # rows of a one-channel image as a sequence (sequential MNIST)


@dataclass
class RandomData(DataConfig):
    """Seeded noise with seeded labels, for analyses that need no signal."""

    shape: list[int] = MISSING  # one sample: channels, height, width
    classes: int = 10
    data_seed: int = 0


@dataclass
class FunctionData(DataConfig):
    """A function of two variables, for the model ``point``."""

    start: list[float] = MISSING  # where the model starts


@dataclass
class SeriesData(DataConfig):
    """Windows of a multivariate series; the target is the value ``horizon`` steps after the window's end."""

    window: int = 168
    horizon: int = 24
    train_share: float = 0.8  # by time; the rest is the test split


@dataclass
class TextData(DataConfig):
    """Token sequences; the label is the input shifted by one."""

    length: int = 256
    vocabulary: int = 10000  # at most this many tokens; rarer ones are <unk>


# -------------------------------------------------------------------------------------------------------- model


@dataclass
class ModelConfig:
    """Keys that every model has."""

    name: str = MISSING
    init: str = "default"  # default | kaiming | xavier | gaussian
    init_gain: float = 1.0  # the gain of xavier, the standard deviation of gaussian
    warmup_steps: int = 0  # optimizer steps before the first teleport
    teleport_samples: int = 32  # n


@dataclass
class MLPConfig(ModelConfig):
    """Fully connected layers of the given hidden widths."""

    widths: list[int] = MISSING
    activation: str = "relu"
    bias: bool = True


@dataclass
class CNNConfig(ModelConfig):
    """3x3 convolutions with max pooling after each, and a linear head."""

    channels: list[int] = MISSING
    activation: str = "relu"


@dataclass
class ResNetConfig(ModelConfig):
    """A residual network that halves the image by strides; skips join equal shapes."""

    channels: list[int] = MISSING
    activation: str = "relu"
    norm: bool = True
    stem_stride: int = 1


@dataclass
class NetworkConfig(ModelConfig):
    """A published network for small images, all of its channels times ``width``."""

    sizes: dict[str, float] = field(default_factory=dict)  # scale -> width; never part of a run's hash
    width: float = MISSING
    activation: str = "relu"


@dataclass
class TorchvisionConfig(ModelConfig):
    """A classification model of torchvision, by its name there, with random weights."""

    arch: str = MISSING


@dataclass
class TransformerSize:
    """How large a transformer is for a data set."""

    heads: int = MISSING
    head_dim: int = MISSING
    layers: int = MISSING


@dataclass
class TransformerConfig(ModelConfig):
    """A transformer whose head follows the task: pooled classes, last-token regression, or causal tokens."""

    sizes: dict[str, TransformerSize] = field(default_factory=dict)  # data set -> size; never part of a run's hash
    heads: int = MISSING
    head_dim: int = MISSING
    layers: int = MISSING
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    activation: str = "relu"
    series_head: str = "last"  # last | mean


@dataclass
class PointConfig(ModelConfig):
    """A point in the domain of a test function."""

    start: list[float] = MISSING


@dataclass
class CustomModel(ModelConfig):
    """A model of the user's own: ``factory`` is ``package.module:function``, called with ``spec`` and ``options``."""

    factory: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------- optimizer


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
    nesterov: bool = False


@dataclass
class AdagradConfig(OptimizerConfig):
    """``torch.optim.Adagrad``."""

    eps: float = 1e-10


@dataclass
class AdamConfig(OptimizerConfig):
    """``torch.optim.Adam`` and ``AdamW``."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8


# --------------------------------------------------------------------------------------------------------- runs


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
    eval_every: int | None = None  # steps; None: at the end of each epoch
    eval_samples: int | None = 10000  # training samples that the training loss is measured on; None: all
    plateau: Plateau = field(default_factory=Plateau)
    compile: bool = False  # training steps by torch.compile
    precision: str = "float32"  # float32 | bfloat16, the latter by autocast
    channels_last: bool = False  # images with their channels innermost


@dataclass
class MachineConfig:
    """Where and with what a run is computed. None of it changes what is computed, and none of it is hashed."""

    runs: str = "runs"
    results: str = "results"  # where figures go
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    threads: int | None = None  # None: as torch chooses
    jobs: int = 1  # runs side by side, where a command makes several
    checkpoint_seconds: float = 60.0
    progress: bool = True


@dataclass
class FigureConfig:
    """A figure: the runs it stands on, what is measured on each of them, and how that is drawn."""

    title: str = MISSING
    claim: str = MISSING  # what the paper says it shows, in our words
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
    seed: int = 0
    scale: str = "quick"
    rates: Any = None  # the table of rates, conf/rates.yaml; read by interpolation, never part of a run's hash
    figure: Any = None  # a figure to make instead of one run


def register() -> None:
    """Make the dataclasses known to Hydra as ``schema/<group>/<kind>``."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    kinds: dict[str, dict[str, type]] = {
        "data": {
            "function": FunctionData,
            "image": ImageData,
            "random": RandomData,
            "series": SeriesData,
            "text": TextData,
        },
        "model": {
            "mlp": MLPConfig,
            "cnn": CNNConfig,
            "resnet": ResNetConfig,
            "network": NetworkConfig,
            "torchvision": TorchvisionConfig,
            "transformer": TransformerConfig,
            "point": PointConfig,
            "custom": CustomModel,
        },
        "optimizer": {"sgd": SGDConfig, "adagrad": AdagradConfig, "adam": AdamConfig},
        "teleport": {
            "none": TeleportConfig,
            "nullspace": NullSpaceConfig,
            "random": RandomNullSpaceConfig,
            "levelset": LevelSetConfig,
            "rescaling": RescalingConfig,
            "symmetry": SymmetryConfig,
            "orbit": OrbitConfig,
            "change_of_basis": ChangeOfBasisConfig,
            "pseudo_teleport": PseudoTeleportConfig,
        },
        "figure": {"figure": FigureConfig},
    }
    for group, nodes in kinds.items():
        for name, node in nodes.items():
            store.store(group=f"schema/{group}", name=name, node=node)
