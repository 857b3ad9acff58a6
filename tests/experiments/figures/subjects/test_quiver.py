"""A network as a quiver: numbers and picture."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Circle

from experiments.figures.subjects.quiver import draw_quiver, measure_quiver
from tests.experiments.figures.tables import tabled


def test_a_quivers_teleported_weights_follow_from_its_taus():
    rows = measure_quiver(None, widths=[2, 3, 2, 1], range=0.9)
    neurons, edges = rows[rows["what"] == "neuron"], rows[rows["what"] == "edge"]
    tau = neurons.set_index(["layer", "neuron"])["tau"]
    assert tau.groupby("layer").size().tolist() == [2, 3, 2, 1]
    np.testing.assert_allclose(tau[[(0, 0), (0, 1), (3, 0)]], 1, rtol=1e-12)
    assert (abs(tau.loc[1:2] - 1) > 1e-3).all()
    assert len(edges) == 6 + 6 + 2
    for edge in edges.itertuples():
        ratio = tau[edge.layer, edge.neuron] / tau[edge.layer - 1, edge.source]
        assert edge.teleported == pytest.approx(edge.weight * ratio, rel=1e-12)


def test_a_quiver_shows_every_neuron_weight_and_tau():
    rows = measure_quiver(None, widths=[2, 2, 1], range=0.9)
    graph, network, change, teleported = draw_quiver(tabled(({}, rows)), "title").axes
    for axes in (graph, network, change, teleported):
        assert sum(isinstance(patch, Circle) for patch in axes.patches) == 5
    edges = rows[rows["what"] == "edge"]
    for axes, column in ((network, "weight"), (teleported, "teleported")):
        numbers = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in axes.texts if text.get_text() != "f"]
        assert sorted(numbers) == sorted(f"{value:.2f}" for value in edges[column])
    taus = [text.get_text() for text in change.texts]
    assert taus == [f"{tau:.2g}" for tau in rows.loc[rows["what"] == "neuron", "tau"]]
