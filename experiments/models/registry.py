"""Models by name: from a configuration and a task's spec to a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from experiments import memory
from experiments.configuration.model_config import (
    CNNConfig,
    CustomModel,
    MLPConfig,
    ModelConfig,
    NetworkConfig,
    PointConfig,
    ResNetConfig,
    TorchvisionConfig,
    TransformerConfig,
)
from experiments.errors import UserError, one_of
from experiments.models import cnn, custom, densenet121, mlp, point, resnet, resnet18, transformer, vgg16, zoo
from experiments.models.init import initialise
from experiments.models.weights import with_weights
from experiments.tasks import Kind, Spec


class Entry(NamedTuple):
    """A model: the dataclass of its keys, the kinds of data that it accepts, and ``build(config, spec)``."""

    config: type[ModelConfig]
    fits: tuple[Kind, ...]
    build: Callable[[Any, Spec], nn.Module]


MODELS: dict[str, Entry] = {
    "mlp": Entry(MLPConfig, mlp.FITS, mlp.build),
    "cnn": Entry(CNNConfig, cnn.FITS, cnn.build),
    "resnet": Entry(ResNetConfig, resnet.FITS, resnet.build),
    "vgg16": Entry(NetworkConfig, vgg16.FITS, vgg16.build),
    "resnet18": Entry(NetworkConfig, resnet18.FITS, resnet18.build),
    "densenet121": Entry(NetworkConfig, densenet121.FITS, densenet121.build),
    "torchvision": Entry(TorchvisionConfig, zoo.FITS, zoo.build),
    "transformer": Entry(TransformerConfig, transformer.FITS, transformer.build),
    "point": Entry(PointConfig, point.FITS, point.build),
    "custom": Entry(CustomModel, custom.FITS, custom.build),
}

_IN_WORDS: dict[Kind, str] = {
    "image": "images",
    "sequence": "sequences",
    "series": "series",
    "text": "text",
    "function": "a test function",
}


SIZES = ("widths", "channels", "width", "heads", "head_dim", "layers", "mlp_ratio")
"""Keys that decide how large a model is, besides the shapes of the data."""

UNSIZED = ("custom", "torchvision", "point")
"""Models without such keys; code that is not ours may not run without memory."""


def build_model(config: ModelConfig, spec: Spec, data: str = "", device: torch.device | None = None) -> nn.Module:
    """The model ``config.name`` for a task, initialised by ``config.init`` or with ``config.weights``, on the CPU.

    Models are in float32, except ``point``, which is in float64.

    Args:
        config: the model's keys.
        spec: inputs and outputs of the model.
        data: the name of the data set, for the message if the model does not fit it.
        device: where the model will be used, for whose memory its size is checked; the CPU unless given.

    Raises:
        UserError: the model is unknown or does not fit the kind of data, a value is invalid, its parameters do not fit
            into memory, or the weights are of another model.
    """
    if config.name not in MODELS:
        raise one_of("model", config.name, list(MODELS))
    entry = MODELS[config.name]
    if not isinstance(config, entry.config):
        raise UserError(
            f"model.name={config.name} does not go with the keys of another model; choose model={config.name}"
        )
    if spec.kind not in entry.fits:
        raise _misfit(config.name, spec.kind, data)
    if config.name not in UNSIZED:
        _check_size(config, spec, device)
    model = entry.build(config, spec)
    initialise(model, config.init, config.init_gain)
    return model if config.weights is None else with_weights(model, Path(config.weights))


def _check_size(config: ModelConfig, spec: Spec, device: torch.device | None) -> None:
    """Refuse a model whose parameters and gradients exceed the memory, before any of it is allocated."""
    keys = ", ".join(f"model.{key}={getattr(config, key)}" for key in SIZES if hasattr(config, key))
    what = f"the model '{config.name}' with {keys} for inputs of shape {list(spec.input_shape)}"
    with memory.told_if_exhausted(what, "lower these sizes"), torch.device("meta"):
        model = MODELS[config.name].build(config, spec)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    memory.require(4 * 2 * numbers, f"{what} has {numbers:.3g} parameters, which with their gradients", device)


def _misfit(name: str, kind: Kind, data: str) -> UserError:
    *others, last = (_IN_WORDS[fit] for fit in MODELS[name].fits)
    takes = f"{', '.join(others)} and {last}" if others else last
    fitting = ", ".join(other for other, entry in MODELS.items() if kind in entry.fits and other != "custom")
    hint = " (or data=smnist, MNIST's rows as sequences)" if (name, kind) == ("transformer", "image") else ""
    source = f"data '{data}'" if data else "the data"
    return UserError(
        f"model '{name}' takes {takes}, but {source} gives {_IN_WORDS[kind]}; fitting models: {fitting}{hint}"
    )
