"""The smoke table of each benchmark subject, measured once per session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pandas as pd
import pytest
import torch

from experiments.benchmarks import subject
from experiments.benchmarks.common import Settings

CPU = torch.device("cpu")
REPEATS = 2


@pytest.fixture(scope="session")
def smoke_table() -> Callable[[str], pd.DataFrame]:
    """Subject -> the rows that it measures at smoke size."""

    @cache
    def measure(name: str) -> pd.DataFrame:
        return pd.DataFrame(subject(name).measure(Settings(REPEATS, True, CPU)))

    return measure


@pytest.fixture(scope="module")
def measured(request, smoke_table) -> pd.DataFrame:
    """The smoke table of the subject that the test module is named after, ``test_benchmark_<subject>``."""
    return smoke_table(request.module.__name__.rpartition("test_benchmark_")[2]).copy()
