"""Panels of the null-space paper on real data, at the scale that takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments.run.make_run import make_run
from experiments.run.runs import load_table
from tests.experiments.small import composed

DATA = Path(os.environ.get("TELEPORT_DATA", "data"))


@pytest.mark.data
@pytest.mark.parametrize(("panel", "file"), [("mlp_mnist", "mnist.npz"), ("cnn_cifar10", "cifar10.npz")])
def test_a_panel_trains_teleports_and_records(tmp_path, panel, file):
    if not (DATA / file).exists():
        pytest.skip(f"{DATA / file} is not here; TELEPORT_DATA says where data are")
    overrides = [f"experiment=nullspace/{panel}", "scale=smoke", "training.eval_samples=200"]
    folder = make_run(composed(f"machine.runs={tmp_path}", f"data.root={DATA.resolve()}", *overrides))
    assert load_table(folder, "curve").train_loss.notna().all()
    events = load_table(folder, "teleport_events")
    assert events.step.tolist() == [1]
    assert not events.no_op.any()
    assert load_table(folder, "teleport_layers").relative_change.max() > 1e-6
