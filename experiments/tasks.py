"""What a task is: two splits held on the device, the shape of a sample, a loss and a metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Kind = Literal["image", "sequence", "series", "text", "function"]


@dataclass(frozen=True)
class Spec:
    """What a model for the task takes and returns.

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
    """One part of a data set, held as one tensor on the device; a batch is looked up by sample numbers."""

    @property
    def augments(self) -> bool:
        """Whether a generator makes a difference to ``batch``."""
        ...

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Inputs [b, *input_shape] and targets of the samples ``index`` [b] (int64, on the split's device).

        With a ``generator`` (on the CPU) the split's augmentation is applied, its random numbers drawn from it;
        without one the samples come as they are.
        """
        ...


@dataclass(frozen=True)
class Task:
    """A learning problem, ready for the loop.

    ``loss(outputs, targets)`` is the mean loss of a batch as a scalar tensor. ``metric`` names what is reported beside
    it: ``accuracy`` (a share), ``perplexity`` (``exp`` of the mean loss) or ``mse``. ``note`` is said wherever results
    are shown, for instance that a data set is a fragment of the published one.
    """

    name: str
    spec: Spec
    train: Split
    test: Split
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Literal["accuracy", "perplexity", "mse"]
    note: str = ""
