"""A run's task and model, rebuilt."""

from __future__ import annotations

import torch

from experiments.figures.rebuilt import rebuild
from experiments.run.runs import load_table


def test_a_run_of_no_epochs_is_the_initial_model(initial_run):
    rebuilt = rebuild(initial_run)
    initial = {name: value.clone() for name, value in rebuilt.model.state_dict().items()}
    rebuilt.load_trained()
    assert all(torch.equal(value, initial[name]) for name, value in rebuilt.model.state_dict().items())
    assert load_table(initial_run.folder, "curve")["step"].tolist() == [0]
