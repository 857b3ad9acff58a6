"""Sets that need no file: scikit-learn's digits, and noise."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.data.images import task_of_arrays
from experiments.data.subset import subset
from experiments.data_config import ImageData, RandomData
from experiments.errors import UserError
from experiments.tasks import Spec, Task


def digits_task(config: ImageData, device: torch.device) -> Task:
    """The 1797 digits of 8 x 8 pixels (values 0 to 16) that scikit-learn carries, split 80 to 20, each class alike.

    Raises:
        UserError: a key of the configuration does not fit.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x = digits.images.astype(np.uint8)[..., None]
    y = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    return task_of_arrays(config, {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}, device)


class NoiseSplit:
    """Standard normal inputs [n, *shape] with labels [n] drawn evenly, on one device."""

    augments = False

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.labels)

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Inputs [b, *shape] and labels [b] of the samples ``index``; noise is never augmented."""
        return self.inputs[index], self.labels[index]


def random_task(config: RandomData, device: torch.device) -> Task:
    """Noise that depends on ``data_seed`` alone: the same on every device, and the first samples of a longer split.

    Raises:
        UserError: no number of samples, or a shape or number of classes that is none.
    """
    shape = tuple(config.shape)
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"data.shape is {list(shape)}, expected channels, height and width, each from 1 up")
    if config.classes < 2:
        raise UserError(f"data.classes is {config.classes}, expected 2 or more")
    if config.data_seed < 0:
        raise UserError(f"data.data_seed is {config.data_seed}, expected 0 or more")

    def split(stream: int, samples: int | None, key: str) -> NoiseSplit:
        if samples is None:
            raise UserError(f"{key} is null, but noise has no end; give a number of samples")
        n = len(subset(samples, samples, key))
        inputs = np.random.default_rng([config.data_seed, stream, 0]).standard_normal((n, prod(shape)), np.float32)
        labels = np.random.default_rng([config.data_seed, stream, 1]).integers(config.classes, size=n)
        return NoiseSplit(torch.from_numpy(inputs).view(n, *shape).to(device), torch.from_numpy(labels).to(device))

    return Task(
        name=config.name,
        spec=Spec("image", shape, config.classes),
        train=split(0, config.train_samples, "data.train_samples"),
        test=split(1, config.test_samples, "data.test_samples"),
        loss=F.cross_entropy,
        metric="accuracy",
        note="noise without signal: only the training split can be learnt",
    )
