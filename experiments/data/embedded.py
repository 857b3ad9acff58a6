"""Data sets without a file to download: scikit-learn's digits, and noise."""

from __future__ import annotations

from importlib.metadata import distribution
from math import ceil, prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments import memory
from experiments.configuration.data_config import DigitsData, RandomData
from experiments.data.images import task_of_arrays
from experiments.data.subset import subset
from experiments.errors import UserError
from experiments.tasks import Spec, Task

DIGITS = "sklearn/datasets/data/digits.csv.gz"
"""A file of scikit-learn's distribution with one row per image: its 64 pixels and its label."""


def digits_task(config: DigitsData, device: torch.device) -> Task:
    """The 1797 digits of 8 x 8 pixels (values 0 to 16) of scikit-learn, split 80 to 20.

    The digits are ordered by writer. ``split="random"`` is stratified by class, and has digits of the same writers in
    both parts: the nearest training image has the label of 98.3 % of the test images. ``split="order"`` holds out the
    last fifth, whose writers are not in the training split (at most one is in both): there it is 95.6 %.

    The file is read without importing scikit-learn, which would take longer than the first training steps.

    Raises:
        UserError: a key of the configuration does not fit.
    """
    digits = np.loadtxt(distribution("scikit-learn").locate_file(DIGITS), np.uint8, delimiter=",")
    x, y = digits[:, :-1].reshape(-1, 8, 8, 1), digits[:, -1].astype(np.int64)
    held_out = ceil(0.2 * len(y))
    if config.split == "order":
        train, test = np.arange(len(y) - held_out), np.arange(len(y) - held_out, len(y))
    else:
        train, test = stratified(y, test_samples=held_out)
    arrays = {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    return task_of_arrays(config, arrays, device)


def stratified(labels: np.ndarray, test_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a training and a test split, shuffled, stratified by class with the largest-remainder method.

    The random draws, and hence the splits, are those of scikit-learn's
    ``train_test_split(stratify=labels, random_state=0)``.
    """
    draws = np.random.RandomState(0)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    share = np.array([len(own) for own in members]) / len(labels) * (len(labels) - test_samples)
    taken = np.floor(share).astype(int)
    for remainder in np.unique(share - taken)[::-1]:
        missing = len(labels) - test_samples - taken.sum()
        if missing == 0:
            break
        tied = np.flatnonzero(share - np.floor(share) == remainder)
        taken[draws.choice(tied, min(len(tied), missing), replace=False)] += 1
    shuffled = [draws.permutation(own) for own in members]
    train = np.concatenate([own[:count] for own, count in zip(shuffled, taken, strict=True)])
    test = np.concatenate([own[count:] for own, count in zip(shuffled, taken, strict=True)])
    return draws.permutation(train), draws.permutation(test)


class NoiseSplit:
    """Standard normal inputs [n, *shape] with uniformly drawn labels [n], on one device."""

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
    """Noise that depends only on ``data_seed``: the same on every device, and a prefix of a longer split.

    Raises:
        UserError: the number of samples is missing, the shape or the number of classes is invalid, or the noise does
            not fit into memory.
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
        memory.require(4.0 * samples * prod(shape), f"{key}={samples} of shape {list(shape)}")
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
