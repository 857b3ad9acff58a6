"""The classification models of torchvision, unchanged."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import nn

from experiments.configuration.model_config import TorchvisionConfig
from experiments.data.compat import torchvision
from experiments.errors import UserError
from experiments.tasks import Spec

FITS = ("image",)


def architectures() -> list[str]:
    """The names of torchvision's classification models."""
    models = torchvision().models
    return list(models.list_models(module=models))


def build(config: TorchvisionConfig, spec: Spec) -> nn.Module:
    """torchvision's ``config.arch`` with random weights, for the number of colours, image size and classes of the task.

    Auxiliary classifiers are off, so that the model has one output in training and in evaluation. An evaluation on a
    blank image checks that the architecture accepts images of this size.

    Shapes: input [b, *spec.input_shape], output [b, spec.outputs].

    Raises:
        UserError: the architecture is unknown or does not accept images of this size.
    """
    known = architectures()
    if config.arch not in known:
        raise _unknown(config.arch, known)
    colours, height, width = spec.input_shape
    models = torchvision().models
    try:
        model = models.get_model(
            config.arch, weights=None, num_classes=spec.outputs, **_keywords(config.arch, height, width)
        )
        if colours != 3:
            _read_colours(model, colours)
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, *spec.input_shape))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        own = models.get_model_weights(config.arch).DEFAULT.meta["min_size"][0]
        raise UserError(
            f"model.arch={config.arch} does not take images of {height}x{width} ({reason}); "
            f"data.image_size={own} resizes them"
        ) from error
    return model.train()


def _keywords(arch: str, height: int, width: int) -> dict[str, Any]:
    """Further keyword arguments that some families need."""
    if arch.startswith("vit_"):
        return {"image_size": height}
    if arch.startswith("maxvit"):
        return {"input_size": (height, width)}
    if arch in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    return {}


def _read_colours(model: nn.Module, colours: int) -> None:
    """Replace the first convolution by one of ``colours`` input channels, in place."""
    name, first = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    own = nn.Conv2d(
        colours,
        first.out_channels,
        first.kernel_size,
        stride=first.stride,
        padding=first.padding,
        bias=first.bias is not None,
    )
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, own)


def _unknown(arch: str, known: list[str]) -> UserError:
    close = difflib.get_close_matches(arch, known, n=3)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return UserError(
        f"unknown model.arch '{arch}'{hint}; it takes the name of any classification model of torchvision, such as "
        "resnet50, convnext_tiny or vit_b_16"
    )
