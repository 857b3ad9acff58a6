from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from experiments.errors import UserError
from experiments.run import checkpoints
from experiments.run.evaluation import Evaluation
from experiments.run.records import Records

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, 0.1),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.1),
}


def state(optimizer="adam"):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    built = OPTIMIZERS[optimizer](model.parameters())
    return model, built, ReduceLROnPlateau(built, patience=1)


def go_on(model, optimizer, plateau, steps):
    """Steps that draw from every global generator."""
    for _ in range(steps):
        inputs = torch.randn(4, 3) + random.random() + np.random.rand()  # noqa: NPY002
        loss = model(inputs).square().mean() + model[0].weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plateau.step(5.0)
    return [tensor.clone() for tensor in model.state_dict().values()], optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_from_a_checkpoint_it_goes_on_bit_identically(tmp_path, optimizer):
    parts = state(optimizer)
    go_on(*parts, 3)
    records = Records(step=3, training_seconds=1.5)
    records.add_evaluation(0.5, 0.1, Evaluation(0.1 + 0.2, 0.5, float("inf"), 0.25))
    checkpoints.save(tmp_path / "c.pt", *parts, records)
    tensors, lr = go_on(*parts, 4)

    torch.manual_seed(99)
    random.seed(99)
    others = state(optimizer)
    assert checkpoints.load(tmp_path / "c.pt", *others) == (others[0], records)
    again, lr_again = go_on(*others, 4)
    assert all(torch.equal(one, other) for one, other in zip(tensors, again, strict=True))
    assert lr == lr_again < 0.1


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    """One bit of a weight."""
    at = content.index(torch.full((4,), 0.3).numpy().tobytes())
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [truncated, flipped, lambda content: b"", lambda content: b"hello"])
def test_a_damaged_file_is_one_sentence_that_names_it(tmp_path, damage):
    path, parts = tmp_path / "checkpoint.pt", state()
    nn.init.constant_(parts[0][0].weight, 0.3)
    checkpoints.save(path, *parts, Records())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"checkpoint\.pt' is damaged.* delete it"):
        checkpoints.load(path, *parts)


def test_of_another_model_it_is_refused(tmp_path):
    model, optimizer, plateau = state()
    checkpoints.save(tmp_path / "checkpoint.pt", model, optimizer, plateau, Records())
    with pytest.raises(UserError, match="delete it"):
        checkpoints.load(tmp_path / "checkpoint.pt", nn.Linear(2, 2), optimizer, plateau)
