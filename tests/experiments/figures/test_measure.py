"""The measurements against slow and independent references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from experiments.errors import UserError
from experiments.figures.measure.convolution import measure_convolution
from experiments.figures.measure.error_control import measure_error_control
from experiments.figures.measure.spectrum import cumulative_energy, measure_spectrum
from experiments.figures.measure.subject import subject_of
from experiments.figures.runs import execute, expand
from teleport import Representation
from tests.experiments.figures.conftest import conf

SMALL = ["data.train_samples=320", "data.test_samples=100", "model.widths=[40,30]", "training.epochs=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measure")
    overrides = ["scale=smoke", "model.teleport_samples=25", f"machine.runs={folder}", *SMALL]
    with conf():
        runs = expand([{"data": "digits", "teleport": "nullspace_paper", "teleport.epochs": [[]]}], overrides)
    execute(runs)
    assert runs[0].reason == ""
    return runs[0]


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


def test_the_second_layers_inputs_of_the_trained_and_the_initial_model(run):
    table = measure_spectrum(run)
    assert list(table["state"].unique()) == ["trained", "init"]
    assert table[["dimension", "positions"]].drop_duplicates().to_numpy().tolist() == [[41, 25]]
    subject = subject_of(run)
    inputs, _ = subject.teleport_batch(25)
    layers = [module for module in subject.model.modules() if isinstance(module, torch.nn.Linear)]
    for state in ("init", "trained"):
        if state == "trained":
            subject.load_trained()
        with torch.no_grad():
            hidden = torch.relu(layers[0](inputs.flatten(1))).double()
        matrix = torch.cat([hidden, torch.ones(25, 1)], dim=1).numpy()
        squares = np.linalg.svd(matrix, compute_uv=False) ** 2
        expected = np.append(np.cumsum(squares) / squares.sum(), np.ones(41 - 25))
        np.testing.assert_allclose(table.loc[table["state"] == state, "energy"], expected, rtol=1e-9)


def test_a_layer_by_its_name(run):
    second = measure_spectrum(run)["layer"].iloc[0]
    assert (measure_spectrum(run, layers={"mlp": second})["layer"] == second).all()
    with pytest.raises(UserError, match="unknown layer of the model 'mlp' 'nothing'"):
        measure_spectrum(run, layers={"mlp": "nothing"})


def test_error_grows_as_the_threshold_falls(run):
    table = measure_error_control(run, thresholds=[1.0, 0.99, 0.9], steps=3, lr=0.5)
    assert table.groupby("threshold")["step"].apply(list).tolist() == [[0, 1, 2, 3]] * 3
    start = table[table["step"] == 0]
    assert start["loss"].nunique() == start["gradient_norm"].nunique() == 1  # the same model each time
    end = table[table["step"] == 3].set_index("threshold")
    error = (end["loss"] / start["loss"].iloc[0] - 1).abs()
    assert error[1.0] < 1e-6 < error[0.9]
    assert end["gradient_norm"][1.0] > start["gradient_norm"].iloc[0]
    assert end["gradient_norm"][0.9] > end["gradient_norm"][1.0]


def test_error_control_starts_from_the_models_own_loss(run):
    subject = subject_of(run)
    subject.load_trained()
    with torch.no_grad():
        expected = subject.loss_fn(subject.model, subject.teleport_batch(25)).item()
    table = measure_error_control(run, thresholds=[1.0], steps=1)
    assert table["loss"].iloc[0] == pytest.approx(expected, rel=1e-6)


def test_error_control_needs_a_null_space_teleport(run, tmp_path):
    with conf():
        (other,) = expand([{"data": "digits", "teleport": "none"}], [f"machine.runs={tmp_path}"])
    other.folder = run.folder
    with pytest.raises(UserError, match="needs a run with teleport=nullspace, not none"):
        measure_error_control(other, thresholds=[1.0], steps=1)


def test_parameters_that_cannot_be_read_are_a_sentence(run, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"PK damaged")
    broken = type(run)(run.labels, run.config, tmp_path)
    with pytest.raises(UserError, match=r"model\.pt' cannot be read"):
        measure_spectrum(broken)


@pytest.mark.parametrize("shape", [{}, {"channels": 3, "size": 6, "filters": 4, "kernel": 3, "seed": 1}])
def test_the_drawings_numbers_are_those_of_a_convolution(shape):
    table = measure_convolution(None, **shape)

    def array(name):
        rows = table[table["array"] == name]
        sizes = [rows[axis].max() + 1 for axis in ("plane", "row", "column")]
        return torch.tensor(rows["value"].to_numpy()).reshape(*sizes).double()

    image, output = array("image"), array("output")
    weight = array("kernel").unflatten(0, (len(output), len(image)))
    torch.testing.assert_close(functional.conv2d(image[None], weight)[0], output)
    torch.testing.assert_close(array("weight")[0] @ array("patches")[0], array("product")[0])
    torch.testing.assert_close(array("product")[0], output.flatten(1))
