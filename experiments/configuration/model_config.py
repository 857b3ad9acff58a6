"""The keys of each kind of model, typed. Part of ``config.py``; importing it is cheap: no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from experiments.configuration.data_config import Flag


@dataclass
class ModelConfig:
    """Keys that every model has."""

    name: str = MISSING
    init: str = "default"  # default | kaiming | xavier | gaussian
    init_gain: float = 1.0  # the gain of xavier, the standard deviation of gaussian
    weights: str | None = None  # the file of a state dict to start from; a run is named by its content
    warmup_steps: int = 0  # optimizer steps before the first teleport
    teleport_samples: int = 32  # n
    label: str | None = None  # in names of folders; None: as the option is called; never part of a run's hash


@dataclass
class MLPConfig(ModelConfig):
    """Fully connected layers of the given hidden widths."""

    widths: list[int] = MISSING
    activation: str = "relu"
    bias: Flag = True


@dataclass
class CNNConfig(ModelConfig):
    """3x3 convolutions with max pooling after each, and a linear head."""

    channels: list[int] = MISSING
    activation: str = "relu"


@dataclass
class ResNetConfig(ModelConfig):
    """A residual network that halves the image by strides; skips join equal shapes."""

    sizes: dict[str, list[int]] = field(default_factory=dict)  # scale -> channels; never part of a run's hash
    channels: list[int] = MISSING
    activation: str = "relu"
    norm: Flag = True
    stem_stride: int = 1


@dataclass
class NetworkConfig(ModelConfig):
    """A published network for small images, all of its channels times ``width``."""

    sizes: dict[str, float] = field(default_factory=dict)  # scale -> width; never part of a run's hash
    width: float = MISSING
    activation: str = "relu"


@dataclass
class TorchvisionConfig(ModelConfig):
    """A classification model of torchvision, by its name there."""

    arch: str = MISSING


@dataclass
class TransformerSize:
    """How large a transformer is for a data set, or at a scale."""

    heads: int = MISSING
    head_dim: int = MISSING
    layers: int = MISSING


@dataclass
class TransformerConfig(ModelConfig):
    """A transformer whose head follows the task: pooled classes, last-token regression, or causal tokens."""

    sizes: dict[str, TransformerSize] = field(
        default_factory=dict
    )  # data set or scale -> size; never part of a run's hash
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
    """A model of the user: ``factory`` is ``package.module:function``, called with ``spec`` and ``options``."""

    factory: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


KINDS: dict[str, type[ModelConfig]] = {
    "mlp": MLPConfig,
    "cnn": CNNConfig,
    "resnet": ResNetConfig,
    "network": NetworkConfig,
    "torchvision": TorchvisionConfig,
    "transformer": TransformerConfig,
    "point": PointConfig,
    "custom": CustomModel,
}
"""What a YAML file's ``/schema/model@_here_`` names -> the dataclass that checks it."""
