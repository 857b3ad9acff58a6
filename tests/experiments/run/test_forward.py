"""Ways to compute a training step: the plain one exactly, the faster ones within their rounding."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from experiments.configuration.config import TrainingConfig
from experiments.configuration.identity import identity
from experiments.configuration.validate import resolve
from experiments.errors import UserError
from experiments.run.forward import training_loss
from experiments.run.make_run import make_run
from experiments.run.runs import load_table
from tests.experiments.small import small

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 8, 8, generator=generator), torch.arange(6) % 5


def loss_and_gradients(model: nn.Module, **settings) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss = training_loss(model, F.cross_entropy, TrainingConfig(epochs=1, batch_size=6, **settings), CPU)(*batch())
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


def test_the_plain_way_is_the_model_and_nothing_else():
    model = network()
    loss, gradients = loss_and_gradients(copy.deepcopy(model))
    expected = F.cross_entropy(model(batch()[0]), batch()[1])
    assert torch.equal(loss, expected)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        assert torch.equal(gradient, wanted)


@pytest.mark.parametrize(
    ("settings", "rounding"),
    [
        ({"precision": "bfloat16"}, 3e-2),
        ({"channels_last": True}, 1e-5),
        pytest.param({"compile": True}, 1e-5, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_faster_ways_agree_within_their_rounding(settings, rounding):
    plain, fast = (loss_and_gradients(network(), **chosen) for chosen in ({}, settings))
    assert fast[0].dtype == torch.float32
    torch.testing.assert_close(fast[0], plain[0], rtol=rounding, atol=rounding)
    for gradient, wanted in zip(fast[1], plain[1], strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - wanted).norm() <= rounding * wanted.norm()


def test_channels_last_reaches_the_convolution_and_leaves_the_parameters():
    model, seen = network(), []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    loss_and_gradients(model, channels_last=True)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert not seen[0].is_contiguous()
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_bfloat16_computes_in_bfloat16():
    model, seen = network(), []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    loss_and_gradients(model, precision="bfloat16")
    assert seen == [torch.bfloat16]


def test_a_faster_run_is_another_run(tmp_path):
    plain, fast = small(tmp_path), small(tmp_path, "training.precision=bfloat16")
    assert identity(resolve(plain)) != identity(resolve(fast))
    one, other = (load_table(make_run(config), "curve") for config in (plain, fast))
    assert one.train_loss[0] == other.train_loss[0]  # evaluations are plain
    assert one.train_loss.iloc[-1] != other.train_loss.iloc[-1]
    assert one.train_loss.iloc[-1] == pytest.approx(other.train_loss.iloc[-1], rel=0.05)


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"training\.precision must be float32 or bfloat16, not 'half'"):
        make_run(small(tmp_path, "training.precision=half"))
    with pytest.raises(UserError, match=r"training\.last_batch must be keep, drop or spread, not 'leave'"):
        make_run(small(tmp_path, "training.last_batch=leave"))


@pytest.mark.parametrize(("last_batch", "steps"), [("drop", 4), ("spread", 6)])
def test_a_run_evaluates_after_batches_of_equal_size(tmp_path, last_batch, steps):
    plain, even = (
        small(tmp_path, "training.batch_size=128"),
        small(tmp_path, "training.batch_size=128", f"training.last_batch={last_batch}"),
    )
    assert identity(resolve(plain)) != identity(resolve(even))
    one, other = (load_table(make_run(config), "curve") for config in (plain, even))
    assert one["step"].tolist() == [0, 3, 6]  # 300 samples: 128, 128 and 44
    assert other["step"].tolist() == [0, steps // 2, steps]
    assert other["epoch"].tolist() == [0, 1, 2]
    assert one.train_loss[0] == other.train_loss[0]
    assert one.train_loss[2] != other.train_loss[2]
