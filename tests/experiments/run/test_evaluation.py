from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from experiments.run.evaluation import Evaluator, position
from experiments.tasks import Spec, Task


class Pairs:
    """Inputs and targets held as tensors."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.inputs)

    def batch(self, index, generator=None):
        return self.inputs[index], self.targets[index]


def task(metric, loss, targets, samples=1030, spec=None):
    values = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, 6, generator=values)
    train, test = Pairs(inputs, targets(inputs)), Pairs(inputs[:70], targets(inputs[:70]))
    return Task("pairs", spec or Spec("image", (6,), 3), train, test, loss, metric)


def classes(inputs):
    return inputs[:, :3].argmax(1)


CPU = torch.device("cpu")
MODEL = nn.Linear(6, 3)


def test_mean_over_batches_is_the_mean_over_samples():
    """The last batch is smaller than the others: 1030 samples in batches of at most 1000."""
    pairs = task("accuracy", functional.cross_entropy, classes)
    evaluation = Evaluator(pairs, None, 32, CPU)(MODEL)
    outputs = MODEL(pairs.train.inputs).double()
    assert evaluation.train_loss == pytest.approx(
        functional.cross_entropy(outputs, pairs.train.targets).item(), rel=1e-6
    )
    right = (outputs.argmax(1) == pairs.train.targets).sum().item()
    assert evaluation.train_metric == pytest.approx(right / 1030, abs=1e-12)


def test_perplexity_is_the_exponential_of_the_mean_loss():
    evaluation = Evaluator(task("perplexity", functional.cross_entropy, classes), None, 7, CPU)(MODEL)
    assert evaluation.test_metric == pytest.approx(math.exp(evaluation.test_loss))


def test_mse_is_taken_on_the_outputs():
    pairs = task("mse", functional.l1_loss, lambda inputs: inputs[:, :3])
    evaluation = Evaluator(pairs, None, 7, CPU)(MODEL)
    error = (MODEL(pairs.test.inputs) - pairs.test.targets).square().mean().item()
    assert evaluation.test_metric == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize(("loss", "metric"), [(float("nan"), math.nan), (800.0, math.inf)])
def test_a_perplexity_that_no_float_holds(loss, metric):
    pairs = task("perplexity", lambda outputs, targets: outputs.sum() * 0 + loss, classes)
    assert str(Evaluator(pairs, None, 7, CPU)(MODEL).train_metric) == str(metric)


def test_the_sample_is_the_same_each_time_and_without_repetition():
    pairs = task("accuracy", functional.cross_entropy, classes)
    first, second = (Evaluator(pairs, 100, 32, CPU).train_index for _ in range(2))
    assert torch.equal(first, second)
    assert len(set(first.tolist())) == 100
    assert Evaluator(pairs, 5000, 32, CPU).train_index.tolist() == list(range(1030))


class Unruly(nn.Module):
    """Draws from the global generator even in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
        self.modes = []

    def forward(self, inputs):
        self.modes.append(self.training or self.inner[1].training)
        return self.inner(inputs) + torch.rand(3)


def test_modes_buffers_and_the_global_generator_are_left_alone():
    model = Unruly().train()
    model.inner[1].eval()
    state, buffers = torch.get_rng_state(), [buffer.clone() for buffer in model.buffers()]
    Evaluator(task("accuracy", functional.cross_entropy, classes), 50, 32, CPU)(model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one, other) for one, other in zip(buffers, model.buffers(), strict=True))
    assert model.training
    assert not model.inner[1].training
    assert not any(model.modes)


def test_batches_are_small_where_samples_are_large():
    text = Spec("text", (256,), 10_000)
    assert Evaluator(task("accuracy", functional.cross_entropy, classes, spec=text), None, 4, CPU).batch_size == 4
    image = Spec("image", (1, 28, 28), 10)
    assert Evaluator(task("accuracy", functional.cross_entropy, classes, spec=image), None, 4, CPU).batch_size == 1000


def test_the_position_of_a_model_is_noted_where_it_has_few_parameters():
    pairs = task("accuracy", functional.cross_entropy, classes)
    assert Evaluator(pairs, None, 32, CPU)(MODEL).position == ()
    small = nn.Linear(2, 3, bias=True)
    assert position(small) == ()  # nine
    small.bias = None
    assert position(small) == tuple(small.weight.detach().flatten().tolist())
