"""Figures of a change of basis from their files over real runs to their tables, on the embedded digits."""

from __future__ import annotations

import pytest

from experiments.figures import table
from experiments.figures.build import build
from tests.experiments.figures.conftest import conf, places

SMALL = ["scale=smoke", "data=digits", "data.train_samples=64", "data.test_samples=32"]
MLP = ["model=mlp", "model.widths=[24,24]"]
OWN = {
    "fig1": [],
    "fig2": ["model=resnet18", "model.width=0.125", "figure.measure.layers=[relu]", "figure.measure.maps=2"],
    "fig3": ["figure.measure.points=5"],
    "fig5": [*MLP, "figure.measure.points=3", "figure.measure.samples=20", "training.epochs=1"],
    "fig11": MLP,
    "fig13": [*MLP, "training.epochs=3", "training.batch_size=32", "training.eval_every=1", "seed=0"],
    "level_curve": [*MLP, "figure.measure.teleports=3", "figure.measure.samples=16"],
}


SLOW = ("fig2", "fig5", "fig13")  # they train


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in OWN])
def test_a_figure_has_its_table_and_pictures(tmp_path, name):
    with conf():
        folder = build([f"figure=neural/{name}", *SMALL, *OWN[name], *places(tmp_path)])
    rows = table.read(folder / f"{name}.csv")
    assert not [column for column in rows if column.endswith(".1")]  # a measured column with the name of a label
    assert (rows["reason"] == "").all()
    assert {path.suffix for path in folder.iterdir()} == {".csv", ".json", ".pdf", ".png"}
    if name == "fig13":
        teleports = rows[rows["event"] == "teleport"]
        assert teleports["teleport.range"].tolist() == [0.5, 0.9, 0.99]
        assert (teleports["epoch"] == 2).all()
        different = rows[rows["event"] == "evaluation"].groupby("step")["train_loss"].nunique()
        assert different.tolist() == [1, 1, 1, 1, 1, 4, 4]  # the same run until the teleport before step 4
    if name == "fig5":
        assert (rows["training.batch_size"] == 8).all()
        assert rows.groupby(["range", "split"]).size().tolist() == [3] * 8
        ends = rows[(rows["split"] == "test") & rows["alpha"].isin([0.5])]
        assert ends["loss"].nunique() == 4  # at an end the function is the same whatever the range, between them not
