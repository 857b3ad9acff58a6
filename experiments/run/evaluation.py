"""Mean loss and metric of a model on a split."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from experiments.run.seeding import Stream, generator
from experiments.tasks import Spec, Split, Task

MOST_VALUES = 2**20
"""Inputs (or, for text, logits) of a batch, so that a batch of large samples fits into memory."""

MOST_COORDINATES = 8
"""Parameters of a model whose values are noted at each evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: mean loss and metric on a sample of the training split and on the whole test split.

    ``position`` holds the values of the parameters if there are at most ``MOST_COORDINATES``, else nothing.
    """

    train_loss: float
    train_metric: float
    test_loss: float
    test_metric: float
    position: tuple[float, ...] = ()


class Evaluator:
    """Measures a model in evaluation mode, always on the same samples.

    Args:
        task: the task.
        eval_samples: training samples to measure on, the same for every seed; ``None`` is all of them.
        batch_size: the training batch; evaluation uses at least as many samples at a time, because no graph is kept.
        device: of the splits.
    """

    def __init__(self, task: Task, eval_samples: int | None, batch_size: int, device: torch.device) -> None:
        self.task = task
        self.device = device
        self.batch_size = max(batch_size, min(1000, MOST_VALUES // values_a_sample(task.spec)))
        order = torch.randperm(len(task.train), generator=generator(0, Stream.EVALUATION))
        # sorted, so that the mean is summed in the order of the split if all samples are used
        self.train_index = order[:eval_samples].sort().values.to(device)
        self.test_index = torch.arange(len(task.test), device=device)

    def __call__(self, model: nn.Module) -> Evaluation:
        """Evaluate ``model``; its mode and the global random state are restored."""
        modes = {module: module.training for module in model.modules()}
        cuda = [self.device] if self.device.type == "cuda" else []
        model.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=cuda):
                train = self._mean(model, self.task.train, self.train_index)
                test = self._mean(model, self.task.test, self.test_index)
        finally:
            for module, training in modes.items():
                module.training = training
        return Evaluation(*train, *test, position(model))

    def _mean(self, model: nn.Module, split: Split, index: Tensor) -> tuple[float, float]:
        """Mean loss and metric over the samples ``index``; one sync with the device at the end."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for batch in index.split(self.batch_size):
            inputs, targets = split.batch(batch)
            outputs = model(inputs)
            loss = self.task.loss(outputs, targets)
            sums += len(batch) * torch.stack([loss.double(), self._metric(outputs, targets)])
        loss, metric = (sums / len(index)).tolist()
        if self.task.metric == "perplexity":
            metric = math.inf if loss > 700 else math.exp(loss)  # exp overflows a float above 709
        return loss, metric

    def _metric(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean of a batch; a perplexity is not a mean over batches and is computed from the loss."""
        if self.task.metric == "accuracy":
            return (outputs.argmax(-1) == targets).double().mean()
        if self.task.metric == "mse":
            return (outputs.double() - targets.double()).square().mean()
        return outputs.new_zeros((), dtype=torch.float64)


def position(model: nn.Module) -> tuple[float, ...]:
    """The values of all parameters, concatenated, of a model with at most ``MOST_COORDINATES`` of them."""
    parameters = list(model.parameters())
    if sum(parameter.numel() for parameter in parameters) > MOST_COORDINATES:
        return ()
    return tuple(value for parameter in parameters for value in parameter.detach().flatten().tolist())


def values_a_sample(spec: Spec) -> int:
    """Values per sample at the widest known tensor: its inputs, or for text its logits."""
    inputs = math.prod(spec.input_shape)
    return inputs * spec.outputs if spec.kind == "text" else inputs
