from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.configuration.data_config import SeriesData
from experiments.data.published import SERIES
from experiments.data.series import read_series, series_task, standardise
from experiments.errors import UserError

CPU = torch.device("cpu")


def config(name: str, root: Path, **keys: object) -> SeriesData:
    return SeriesData(**{"name": name, "root": str(root), "train_samples": None, "test_samples": None, **keys})


def exchange_rate(root: Path, values: np.ndarray) -> Path:
    path = root / "exchange_rate" / "exchange_rate.txt.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        np.savetxt(file, values, delimiter=",", fmt="%.6f")
    return path


def counted(rows: int) -> np.ndarray:
    """A series that says where it is: row r, column c holds 10 r + c."""
    return 10.0 * np.arange(rows)[:, None] + np.arange(8)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """One folder a length, so that hypothesis writes each file once."""
    made: dict[int, Path] = {}

    def root(rows: int) -> Path:
        if rows not in made:
            made[rows] = tmp_path_factory.mktemp(f"rows{rows}")
            exchange_rate(made[rows], counted(rows))
        return made[rows]

    return root


@given(st.sampled_from([20, 33, 60]), st.integers(1, 6), st.integers(1, 4), st.sampled_from([0.5, 0.6, 0.8]))
def test_windows_are_those_of_a_slow_loop_and_none_leaks(roots, rows, window, horizon, share):
    values = counted(rows)
    boundary = int(share * rows)
    mean, std = values[:boundary].mean(0), values[:boundary].std(0)
    expected: dict[str, list] = {"train": [], "test": []}
    for start in range(rows):
        target = start + window - 1 + horizon
        if target < rows:
            pair = ((values[start : start + window] - mean) / std, (values[target] - mean) / std)
            expected["train" if target < boundary else "test"].append(pair)

    task = series_task(config("exchange_rate", roots(rows), window=window, horizon=horizon, train_share=share), CPU)
    for split, pairs in ((task.train, expected["train"]), (task.test, expected["test"])):
        assert len(split) == len(pairs)
        x, y = split.batch(torch.arange(len(split)))
        np.testing.assert_allclose(x, np.stack([a for a, _ in pairs]), atol=1e-5)
        np.testing.assert_allclose(y, np.stack([b for _, b in pairs]), atol=1e-5)

    def row_of(scaled: torch.Tensor) -> torch.Tensor:
        return ((scaled[..., 0] * std[0] + mean[0]) / 10).round()

    x, y = task.train.batch(torch.arange(len(task.train)))
    assert row_of(x).max() < boundary
    assert row_of(y).max() < boundary
    assert row_of(task.test.batch(torch.arange(len(task.test)))[1]).min() >= boundary
    assert task.spec.input_shape == (window, 8)
    assert task.spec.outputs == 8


def test_the_future_changes_nothing_in_training(tmp_path):
    values = np.random.default_rng(0).standard_normal((100, 8))
    changed = values.copy()
    changed[80:] += 1000
    batches = []
    for name, series in (("a", values), ("b", changed)):
        exchange_rate(tmp_path / name, series)
        task = series_task(config("exchange_rate", tmp_path / name, window=10, horizon=3), CPU)
        batches.append(task.train.batch(torch.arange(len(task.train))))
    assert torch.equal(batches[0][0], batches[1][0])
    assert torch.equal(batches[0][1], batches[1][1])


def test_windows_share_one_series(tmp_path):
    exchange_rate(tmp_path, counted(200))
    task = series_task(config("exchange_rate", tmp_path, window=50, horizon=1), CPU)
    assert task.train.series is task.test.series
    assert task.train.series.shape == (200, 8)


def test_subsets_are_windows_of_the_whole(tmp_path):
    exchange_rate(tmp_path, np.random.default_rng(0).standard_normal((100, 8)))
    whole = series_task(config("exchange_rate", tmp_path, window=10, horizon=3), CPU)
    some = series_task(config("exchange_rate", tmp_path, window=10, horizon=3, train_samples=7, test_samples=2), CPU)
    assert (len(some.train), len(some.test)) == (7, 2)
    everything = whole.train.batch(torch.arange(len(whole.train)))[0]
    for window in some.train.batch(torch.arange(7))[0]:
        assert (everything == window).flatten(1).all(1).any()


@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 99))
def test_standardised_training_rows_have_mean_zero_and_variance_one(rows, columns, seed):
    values = np.random.default_rng(seed).normal(50, 7, (rows + 5, columns))
    values[:rows, 0] = 3.7  # constant while training
    values[rows:, 0] = 4.7
    scaled = standardise(values, rows)
    np.testing.assert_allclose(scaled[:rows].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled[:rows, 1:].std(0), 1, atol=1e-4)
    np.testing.assert_allclose(scaled[:rows, 0], 0, atol=1e-6)
    np.testing.assert_allclose(scaled[rows:, 0], 1, atol=1e-6)


def test_a_fragment_says_so(tmp_path):
    synthetic.write(tmp_path, "electricity", rows=840)
    task = series_task(config("electricity", tmp_path), CPU)
    assert "840 of 26304 hours" in task.note
    assert (len(task.train), len(task.test)) == (840 * 8 // 10 - 191, 168)


def test_only_a_traffic_fragment(tmp_path):
    (tmp_path / "traffic").mkdir()
    values = np.random.default_rng(0).standard_normal((192, 862)).astype(np.float32)
    np.savez(tmp_path / "traffic" / "traffic-192h-zscored.npz", data=values)
    task = series_task(config("traffic", tmp_path, window=24, horizon=1), CPU)
    assert "192 of 17544 hours" in task.note
    assert "standardised" in task.note
    with pytest.raises(UserError, match="192 hours, 153 of them for training: too few for windows of 168") as error:
        series_task(config("traffic", tmp_path), CPU)
    assert "17544 hours" in str(error.value)
    synthetic.write(tmp_path, "traffic", rows=400)  # the text is preferred where both are there
    assert "400 of 17544 hours" in series_task(config("traffic", tmp_path), CPU).note


def test_headers_and_dates_are_no_values(tmp_path):
    rows = ["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT"]
    rows += [f"2016-07-01 {hour:02}:00:00," + ",".join(str(hour + 0.5 * c) for c in range(7)) for hour in range(24)]
    path = tmp_path / "ETTh1.csv"
    path.write_text("\n".join(rows))
    values = read_series(path, SERIES["etth1"])
    np.testing.assert_array_equal(values, np.arange(24)[:, None] + 0.5 * np.arange(7))


GOOD = "\n".join([",".join(["1.5"] * 8)] * 30)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a whole series file"),
        (gzip.compress(b""), "not a whole series file"),
        (gzip.compress(GOOD.encode())[:-12], "not a whole series file"),
        (GOOD.encode(), "not a whole series file"),  # not gzipped
        (gzip.compress((GOOD + "," + GOOD).encode()), "not a whole series file"),  # a line too long
        (gzip.compress(GOOD.replace("1.5", "x", 1).encode()), "not a whole series file"),
        (gzip.compress((GOOD + "\n1.5,1.5").encode()), "no number in row 30, column 2"),
        (gzip.compress(GOOD.replace("1.5", "nan", 1).encode()), "no number in row 0, column 0"),
        (gzip.compress(b"1,2,3\n4,5,6\n"), r"shape \[2, 3\], expected \[days, 8\]"),
    ],
    # A gzip header holds the time: as an identifier it would differ from worker to worker.
    ids=["empty", "no rows", "cut off", "plain", "long line", "word", "short line", "nan", "shape"],
)
def test_a_bad_file_is_named(tmp_path, content, said):
    path = tmp_path / "exchange_rate.txt.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        read_series(path, SERIES["exchange_rate"])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arrays", [{}, {"data": np.zeros((5, 3))}, {"data": np.zeros(862)}])
def test_a_bad_fragment_is_named(tmp_path, arrays):
    path = tmp_path / "traffic-192h-zscored.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"traffic-192h-zscored\.npz"):
        read_series(path, SERIES["traffic"])


@pytest.mark.parametrize(
    ("keys", "said"),
    [({"window": 0}, "data.window"), ({"horizon": 0}, "data.horizon"), ({"train_share": 1.0}, "data.train_share")],
)
def test_a_key_that_does_not_fit(tmp_path, keys, said):
    with pytest.raises(UserError, match=said):
        series_task(config("exchange_rate", tmp_path, **keys), CPU)


def test_the_stand_in_has_the_published_format(tmp_path):
    path = synthetic.write(tmp_path, "electricity", rows=50)
    values = read_series(path, replace(SERIES["electricity"], rows=50))
    assert values.shape == (50, 321)
    assert (values == values.round()).all()
    with gzip.open(path, "rt") as file:
        np.testing.assert_array_equal(np.loadtxt(file, delimiter=","), values)


@pytest.mark.data
@pytest.mark.parametrize("name", SERIES)
def test_real_sets(name, real_root):
    published = SERIES[name]
    task = series_task(config(name, real_root(name), window=24, horizon=2), CPU)
    rows = len(task.train.series)
    assert task.train.series.shape == (rows, published.columns)
    assert (task.note == "") == (rows == published.rows)
    assert len(task.train) + len(task.test) == rows - 25
    std = task.train.series[: int(0.8 * rows)].std(0, correction=0)
    assert ((std - 1).abs() < 1e-3).sum() >= published.columns - 1  # one client's month is all zero
