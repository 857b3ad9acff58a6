"""Forecasting tasks: windows of a multivariate series, taken from the series when a batch needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.configuration.data_config import SeriesData
from experiments.data.arrays import NOT_WHOLE
from experiments.data.fetch import ensure
from experiments.data.published import SERIES, SeriesSet, stored_files
from experiments.data.subset import subset
from experiments.errors import UserError
from experiments.tasks import Spec, Task


class SeriesSplit:
    """Windows of one standardised series float [t, d], each stored as the number of its first row.

    The window that starts at row s has the rows s .. s + window - 1; its target is the row ``horizon`` after the last
    of them. Both splits share one series, so that a window takes eight bytes.
    """

    augments = False

    def __init__(self, series: Tensor, starts: Tensor, window: int, horizon: int) -> None:
        self.series, self.starts = series, starts
        self.offsets = torch.arange(window, device=series.device)
        self.ahead = window - 1 + horizon

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.starts)

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Windows [b, window, d] and targets [b, d] of the samples ``index``; nothing is augmented."""
        starts = self.starts[index]
        return self.series[starts[:, None] + self.offsets], self.series[starts + self.ahead]


def series_task(config: SeriesData, device: torch.device) -> Task:
    """The task of a published series, downloaded if it is missing.

    The first ``train_share`` of the rows is the training part: all rows of the training windows and their targets lie
    in it, and the series is standardised by its means and standard deviations. The targets of the test split lie in
    the rest; their windows may extend into the training part, as in a forecast at that time.

    Raises:
        UserError: the set cannot be downloaded, its file is invalid, or it is too short for the window.
    """
    _check_keys(config)
    published = SERIES[config.name]
    path = series_file(config.name, Path(config.root))
    values = read_series(path, published)
    rows = len(values)
    boundary = int(config.train_share * rows)
    reach = config.window + config.horizon  # rows from a window's first to its target
    train_starts = torch.arange(max(0, boundary - reach + 1))
    test_starts = torch.arange(max(0, boundary - reach + 1), max(0, rows - reach + 1))
    if len(train_starts) == 0 or len(test_starts) == 0:
        raise UserError(
            f"{path} has {rows} {published.unit}, {boundary} of them for training: too few for windows of "
            f"{config.window} with a target {config.horizon} later; lower data.window or data.horizon, or put the "
            f"whole published series ({published.rows} {published.unit}) there"
        )
    series = torch.from_numpy(standardise(values, boundary)).to(device)

    def split(starts: Tensor, wanted: int | None, key: str) -> SeriesSplit:
        chosen = starts[subset(len(starts), wanted, key)]
        return SeriesSplit(series, chosen.to(device), config.window, config.horizon)

    return Task(
        name=config.name,
        spec=Spec("series", (config.window, published.columns), published.columns),
        train=split(train_starts, config.train_samples, "data.train_samples"),
        test=split(test_starts, config.test_samples, "data.test_samples"),
        loss=F.mse_loss,
        metric="mse",
        note=_note(path, published, rows),
    )


def series_file(name: str, root: Path) -> Path:
    """The file that a series is read from: the published one, or a fragment if only that exists."""
    published = SERIES[name]
    ensure(name, root)
    path = stored_files(name, root)[0]
    return path if path.is_file() or published.fragment is None else root / name / published.fragment


def read_series(path: Path, published: SeriesSet) -> np.ndarray:
    """The values of a series, float64 [rows, columns].

    Raises:
        UserError: the file is not readable, has a wrong number of columns, no rows, or a missing value.
    """
    try:
        values = _read_npz(path) if path.suffix == ".npz" else _read_text(path, published)
    except NOT_WHOLE as error:
        raise UserError(
            f"{path} is not a whole series file ({' '.join(str(error).split())}); delete it, and it is fetched again"
        ) from error
    if values.ndim != 2 or values.shape[1] != published.columns or len(values) == 0:
        raise UserError(
            f"{path} holds values of shape {list(values.shape)}, expected [{published.unit}, {published.columns}]"
        )
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise UserError(f"{path} has no number in row {row}, column {column}; every value must be finite")
    return values


def _read_npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        return file["data"].astype(np.float64)


def _read_text(path: Path, published: SeriesSet) -> np.ndarray:
    import pandas as pd

    table = pd.read_csv(path, header=0 if published.header else None)
    if published.skip is not None:
        table = table.drop(columns=published.skip)
    return table.to_numpy(dtype=np.float64)


def standardise(values: np.ndarray, boundary: int) -> np.ndarray:
    """Columns minus mean, divided by standard deviation, both of the first ``boundary`` rows; float32 [t, d].

    A column that is constant in these rows is only centred.
    """
    train = values[:boundary]
    std = train.std(axis=0)
    std[np.ptp(train, axis=0) == 0] = 1.0
    return ((values - train.mean(axis=0)) / std).astype(np.float32)


def _check_keys(config: SeriesData) -> None:
    for key in ("window", "horizon"):
        if getattr(config, key) < 1:
            raise UserError(f"data.{key} is {getattr(config, key)}, expected 1 or more")
    if not 0 < config.train_share < 1:
        raise UserError(f"data.train_share is {config.train_share}, expected a share between 0 and 1")


def _note(path: Path, published: SeriesSet, rows: int) -> str:
    if rows == published.rows:
        return ""
    scaled = ", already standardised, its own scale is lost" if path.suffix == ".npz" else ""
    return f"a fragment of the published series: {rows} of {published.rows} {published.unit}{scaled}"
