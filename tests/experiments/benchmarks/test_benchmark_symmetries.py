"""The table of models: outputs are kept, and rows that were measured before are not measured again."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn

from experiments.benchmarks import symmetries
from experiments.benchmarks.common import Settings
from experiments.benchmarks.symmetric_models import SymmetricModel, classifiers, models
from experiments.benchmarks.tables import record

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def test_outputs_are_kept_and_what_is_found_is_told(smoke_table):
    table = smoke_table("symmetries").set_index("model")
    assert (table.state == "measured").all()
    assert table.difference_double.max() < 1e-6
    assert table.difference_single.max() < 1e-4
    assert table.loc["Llama", "rotations"] > 0
    assert table.loc["Llama", "rotary"] == 2 * 2 * 2 * 4
    assert table.loc["Llama", "folded"] == 5
    assert table.loc["torchvision squeezenet1_1", "log10_permutations"] > 1000
    assert "relu" in table.loc["torchvision squeezenet1_1", "pins"]


def test_rows_of_an_interrupted_measurement_are_kept(tmp_path, monkeypatch):
    made = []

    def without_package(smoke):
        for number in range(4):
            made.append(number)
            yield SymmetricModel(f"model {number}", "no_such_package", None, None, None)

    monkeypatch.setattr(symmetries, "models", without_package)
    record("symmetries", Settings(1, True, CPU), tmp_path)
    path = next(tmp_path.glob("symmetries-*.csv"))
    table = pd.read_csv(path)
    assert table.state.tolist() == ["no_such_package is not installed"] * 4
    table.assign(commit="earlier").head(3).to_csv(path, index=False)
    record("symmetries", Settings(1, True, CPU), tmp_path)
    again = pd.read_csv(path)
    assert again.model.tolist() == table.model.tolist()
    assert (again.commit == "earlier").tolist() == [True, True, True, False]


def test_there_are_a_hundred_models_of_different_names():
    names = [each.name for each in models(smoke=False)]
    assert len(names) == len(set(names)) > 100
    assert len(classifiers()) == 80


def test_no_weight_is_left_at_zero_behind_which_nothing_would_be_seen():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    nn.init.zeros_(model[2].weight)
    before = model[0].weight.clone()
    outputs = symmetries._random(model)(torch.eye(3))
    assert torch.equal(model[0].weight, before)
    assert (outputs[0] != outputs[1]).any()
