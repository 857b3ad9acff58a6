"""Tasks: two splits held on the device, the shape of a sample, a loss and a metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Kind = Literal["image", "sequence", "series", "text", "function"]


@dataclass(frozen=True)
class Spec:
    """The inputs and outputs of a model for the task.

    | kind     | ``input_shape`` of a sample       | model output for b samples        |
    |----------|-----------------------------------|-----------------------------------|
    | image    | (channels, height, width) float   | [b, outputs] logits               |
    | sequence | (length, features) float          | [b, outputs] logits               |
    | series   | (window, features) float          | [b, outputs] next values          |
    | text     | (length,) int64 token ids         | [b, length, outputs] logits       |
    | function | () float, without meaning         | [b, outputs] points               |

    ``outputs`` is the number of classes, of regressed features, of tokens in the vocabulary or of variables.
    """

    kind: Kind
    input_shape: tuple[int, ...]
    outputs: int


class Split(Protocol):
    """One part of a data set, held as one tensor on the device; a batch is selected by sample numbers."""

    @property
    def augments(self) -> bool:
        """Whether ``batch`` depends on its generator."""
        ...

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Inputs [b, *input_shape] and targets of the samples ``index`` [b] (int64, on the split's device).

        With a ``generator`` (on the CPU) the split's augmentation is applied, its random numbers drawn from it;
        without one the samples are not augmented.
        """
        ...


@dataclass(frozen=True)
class Task:
    """A learning problem for the training loop.

    ``loss(outputs, targets)`` is the mean loss of a batch as a scalar tensor. ``metric`` names the quantity reported
    besides it: ``accuracy`` (a share), ``perplexity`` (``exp`` of the mean loss) or ``mse``. ``note`` accompanies all
    results, for instance if a data set is a fragment of the published one.
    """

    name: str
    spec: Spec
    train: Split
    test: Split
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Literal["accuracy", "perplexity", "mse"]
    note: str = ""
