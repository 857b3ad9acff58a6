"""Spectra of layer inputs, against singular value decompositions by numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.errors import UserError
from experiments.figures.rebuilt import rebuild
from experiments.figures.subjects.spectrum import cumulative_energy, draw_spectrum, measure_spectrum
from teleport import Representation
from tests.experiments.figures.tables import said, tabled


@pytest.mark.parametrize("positions", [30, 700])
def test_energies_of_a_known_matrix_are_those_of_numpy(positions):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(positions, 450, generator=generator) * torch.logspace(0, -3, 450)
    representation = Representation(450, 1, torch.float32, ones=False)
    representation.update(rows[None])
    table = cumulative_energy(representation.spectrum(), 450)

    squares = np.linalg.svd(rows.numpy().astype(np.float64).T, compute_uv=False) ** 2
    squares = np.append(squares, np.zeros(450 - len(squares)))
    index = table["index"].to_numpy()
    np.testing.assert_allclose(table["energy"], (np.cumsum(squares) / squares.sum())[index - 1], rtol=1e-9)
    np.testing.assert_allclose(table["rest"], [squares[i:].sum() / squares.sum() for i in index], rtol=1e-6, atol=1e-14)
    assert (index[0], index[-1]) == (1, 450)
    assert table["share"].iloc[-1] == 1.0
    assert table["energy"].is_monotonic_increasing


def test_the_second_layers_inputs_of_the_trained_and_the_initial_model(trained_run):
    table = measure_spectrum(trained_run)
    assert list(table["state"].unique()) == ["trained", "init"]
    assert table[["dimension", "positions"]].drop_duplicates().to_numpy().tolist() == [[41, 25]]
    rebuilt = rebuild(trained_run)
    inputs, _ = rebuilt.teleport_batch(25)
    layers = [module for module in rebuilt.model.modules() if isinstance(module, torch.nn.Linear)]
    for state in ("init", "trained"):
        if state == "trained":
            rebuilt.load_trained()
        with torch.no_grad():
            hidden = torch.relu(layers[0](inputs.flatten(1))).double()
        matrix = torch.cat([hidden, torch.ones(25, 1)], dim=1).numpy()
        squares = np.linalg.svd(matrix, compute_uv=False) ** 2
        expected = np.append(np.cumsum(squares) / squares.sum(), np.ones(41 - 25))
        np.testing.assert_allclose(table.loc[table["state"] == state, "energy"], expected, rtol=1e-9)


def test_a_layer_by_its_name(trained_run):
    second = measure_spectrum(trained_run)["layer"].iloc[0]
    assert (measure_spectrum(trained_run, layers={"mlp": second})["layer"] == second).all()
    with pytest.raises(UserError, match="unknown layer of the model 'mlp' 'nothing'"):
        measure_spectrum(trained_run, layers={"mlp": "nothing"})


def test_parameters_that_cannot_be_read_are_a_sentence(trained_run, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"PK damaged")
    broken = type(trained_run)(trained_run.labels, trained_run.config, tmp_path)
    with pytest.raises(UserError, match=r"model\.pt' is damaged"):
        measure_spectrum(broken)


def test_spectra_show_their_data_sets_and_why_one_is_missing():
    spectrum = pd.DataFrame({"share": [0.5, 1.0], "energy": [0.9, 1.0], "rest": [0.1, 0.0]})
    measured = spectrum.assign(state="trained", layer="linear2.weight", dimension=2, positions=9)
    cells = [
        ({"data": "mnist", "model": "mlp"}, measured),
        ({"data": "traffic", "model": "transformer"}, pd.DataFrame({"reason": ["it is not here"]})),
    ]
    figure = draw_spectrum(tabled(*cells), "title")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [0.9, 1.0])
    assert "Traffic: it is not here" in said(figure)
    assert not figure.axes[0].texts
    names = " ".join(text.get_text() for text in figure.axes[1].get_legend().get_texts())
    assert "MNIST, MLP\nlinear2, d = 2" in names


def test_a_spectrum_below_another_is_wider_and_each_kind_of_network_has_a_column():
    spectrum = pd.DataFrame({"share": [0.5, 1.0], "energy": [0.9, 1.0], "rest": [0.1, 0.0]})
    measured = spectrum.assign(state="trained", layer="linear2.weight", dimension=2, positions=9)
    tasks = [("mnist", "mlp"), ("fashion_mnist", "mlp"), ("cifar10", "cnn"), ("tiny_imagenet", "resnet")]
    figure = draw_spectrum(tabled(*(({"data": d, "model": m}, measured) for d, m in tasks)), "title")
    upper = figure.axes[:2]
    assert [axes.get_title() for axes in upper] == ["fully connected", "convolutional"]
    for axes in upper:
        first, second = axes.lines
        assert first.get_linewidth() > second.get_linewidth()
        assert first.get_color() != second.get_color()


def test_the_names_of_curves_cover_none_of_them():
    share = np.linspace(0.01, 1, 100)
    spectra = {"state": "trained", "layer": "a.b.weight", "dimension": 65, "share": share}
    measured = pd.DataFrame(spectra | {"energy": share**0.3, "rest": 1 - 0.9 * share})
    cells = [({"data": data, "model": "transformer"}, measured) for data in ("smnist", "electricity", "ptb")]
    figure = draw_spectrum(tabled(*cells), "title")
    figure.draw_without_rendering()
    for axes in figure.axes:
        for box in [legend.get_window_extent() for legend in [axes.get_legend()] if legend]:
            points = np.concatenate([line.get_transform().transform(line.get_xydata()) for line in axes.lines])
            assert not ((points > box.min) & (points < box.max)).all(axis=1).any()
