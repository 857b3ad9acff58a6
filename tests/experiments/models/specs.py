"""A small spec of each kind, and a batch for each."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.tasks import Kind, Spec

SPECS: dict[Kind, Spec] = {
    "image": Spec("image", (3, 16, 12), 10),
    "sequence": Spec("sequence", (7, 5), 10),
    "series": Spec("series", (9, 4), 4),
    "text": Spec("text", (6,), 11),
    "function": Spec("function", (), 2),
}

LARGER = {"vgg16": Spec("image", (3, 32, 40), 10)}
"""Of models that take no images as small as that."""


def spec_for(model: str, kind: Kind) -> Spec:
    """A small spec of a kind that the model takes."""
    return LARGER.get(model, SPECS[kind])


def batch(spec: Spec, size: int = 3) -> Tensor:
    """``size`` samples of the spec's shape."""
    if spec.kind == "text":
        return torch.randint(spec.outputs, (size, *spec.input_shape))
    return torch.randn(size, *spec.input_shape)


def output_shape(spec: Spec, size: int = 3) -> tuple[int, ...]:
    """The shape that a model's output for ``size`` samples has."""
    return (size, *spec.input_shape, spec.outputs) if spec.kind == "text" else (size, spec.outputs)
