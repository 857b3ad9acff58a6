"""Which modules an evaluation leaves out, so that their training mode is evaluated, too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from teleport._tracing.evaluations import leaves_out, modes_of, reached_modules


@pytest.mark.parametrize(
    ("auxiliary", "training", "called", "expected"),
    [
        (nn.Linear(3, 2), True, False, True),
        (nn.Linear(3, 2), True, True, False),
        (nn.Linear(3, 2), False, False, False),
        (nn.Dropout(), True, False, False),
    ],
    ids=["not called", "called", "in evaluation mode", "without parameters"],
)
def test_an_evaluation_leaves_out_what_it_does_not_call(auxiliary, training, called, expected):
    model = nn.ModuleDict({"main": nn.Sequential(nn.Linear(3, 3), nn.ReLU()), "auxiliary": auxiliary})
    model.train(training)
    with reached_modules() as reached:
        for part in ("main", "auxiliary") if called else ("main",):
            model[part](torch.zeros(1, 3))
    assert model["main"][0] in reached
    assert (auxiliary in reached) == called
    assert leaves_out(reached, modes_of(model)) == expected
