"""Test functions as tasks: inputs have no content, and the model's output is the point."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.configuration.data_config import FunctionData
from experiments.functions import FUNCTIONS
from experiments.tasks import Spec, Task


class OneSample:
    """A split of one sample without content, whose target is the function's minimum, so that an epoch is one step."""

    augments = False

    def __init__(self, minimum: tuple[float, float], device: torch.device) -> None:
        self.minimum = torch.tensor(minimum, dtype=torch.float64, device=device)

    def __len__(self) -> int:
        """One sample."""
        return 1

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Inputs [b], all zero, and targets [b, 2]: the minimum, which the loss ignores."""
        return self.minimum.new_zeros(len(index)), self.minimum.expand(len(index), 2)


def function_task(config: FunctionData, device: torch.device) -> Task:
    """The task of the function ``config.name``.

    The loss of points [b, 2] is the mean value of the function, the metric ``mse`` the mean squared distance from the
    minimum per coordinate.
    """
    function = FUNCTIONS[config.name]
    split = OneSample(function.minimum, device)

    def loss(points: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = function(points[:, 0], points[:, 1]).mean()
        return value

    return Task(name=config.name, spec=Spec("function", (), 2), train=split, test=split, loss=loss, metric="mse")
