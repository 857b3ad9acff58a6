"""The measurements against slow and independent references."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from experiments.benchmarks import runtime
from experiments.errors import UserError
from experiments.figures.measure.convolution import measure_convolution
from experiments.figures.measure.error_control import measure_error_control
from experiments.figures.measure.runtime import measure_runtime
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


def benchmark_table(folder, machine):
    """A teleport takes 2 seconds times samples times the square of the width, on every method."""
    cases = [(width, 10, 2, 1, 1) for width in (1, 2, 4)] + [(2, samples, 2, 1, 1) for samples in (20, 40)]
    rows = pd.DataFrame(cases, columns=runtime.AXES).assign(method="symmetry 2024", repeats=3, steps_taken=1)
    rows["seconds"] = rows["fastest"] = rows["slowest"] = 2.0 * rows["samples"] * rows["width"] ** 2
    rows = rows.assign(null_dimensions=0, hardware=machine, threads=1, torch="2.0")
    rows[runtime.COLUMNS].to_csv(folder / f"runtime-{machine}.csv", index=False)


def test_runtimes_are_those_of_the_benchmark_along_each_axis_that_it_varies(tmp_path):
    for machine in ("chip", "disc", "tiny-smoke"):
        benchmark_table(tmp_path, machine)
    table = measure_runtime(None, folder=str(tmp_path))
    assert list(table["hardware"].unique()) == ["chip, 1 thread, torch 2.0", "disc, 1 thread, torch 2.0"]
    chip = table[table["hardware"].str.startswith("chip")]
    exponents = chip.groupby("axis")["exponent"].first()
    assert exponents.to_dict() == {"width": pytest.approx(2), "samples": pytest.approx(1)}
    assert chip.loc[chip["axis"] == "width", ["value", "seconds"]].to_numpy().tolist() == [[1, 20], [2, 80], [4, 320]]
    assert (chip[["width", "samples"]] == [2, 10]).all(axis=None)


def test_the_exponent_of_a_runtime_leaves_out_what_took_no_step(tmp_path):
    benchmark_table(tmp_path, "chip")
    path = tmp_path / "runtime-chip.csv"
    rows = pd.read_csv(path)
    rows.loc[rows["width"] == 4, ["seconds", "steps_taken"]] = 0.1, 0
    rows.to_csv(path, index=False)
    table = measure_runtime(None, folder=str(tmp_path))
    of_width = table[table["axis"] == "width"]
    assert of_width["exponent"].tolist() == pytest.approx([2, 2, 2])
    assert of_width["steps_taken"].tolist() == [1, 1, 0]


def test_runtimes_need_a_table_of_the_benchmark(tmp_path):
    with pytest.raises(UserError, match=r"no 'runtime-\*.csv' in .*scripts/benchmark.py runtime"):
        measure_runtime(None, folder=str(tmp_path))
    (tmp_path / "runtime-chip.csv").write_text("method,width\na,3\n")
    with pytest.raises(UserError, match="lacks the column 'samples'"):
        measure_runtime(None, folder=str(tmp_path))


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
