"""Peaks are of the work alone, of a process of its own, and the teleports that are measured move layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.benchmarks.memory import (
    AXES,
    EACH,
    FULL,
    ONCE,
    TRAINING,
    Case,
    summary,
)


def test_teleports_take_their_steps_and_move(measured):
    teleports = measured[measured.method != TRAINING]
    assert (teleports.steps_taken == 2).all()
    assert (teleports.moved > 0).all()
    width, vocabulary = 64, 11
    block = 4 * (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width + 4 * width
    whole = 2 * width + block + (width + 1) * vocabulary + (vocabulary + 8) * width
    assert set(measured.weights_bytes) == {4 * whole}


def test_a_peak_is_felt_after_it_is_over():
    code = (
        "import torch\n"
        "from experiments.benchmarks.memory import peak_bytes\n"
        "before = peak_bytes(torch.device('cpu'))\n"
        "torch.ones(2**24)\n"  # 64 MiB, given back at once
        "print((peak_bytes(torch.device('cpu')) - before) / 2**20)\n"
    )
    root = Path(__file__).parents[3]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert float(told) == pytest.approx(64, rel=0.1)


def test_ratios_are_to_the_training_step_and_the_weights_and_slopes_of_bytes():
    peaks = {
        TRAINING: lambda length: 10 * length,
        ONCE: lambda length: 2 * length**2,
        EACH: lambda length: 3 * length**2,
    }
    rows = [
        (method, *vars(Case(length=length)).values(), 1.0, 100, peak(length))
        for length in (256, 512)
        for method, peak in peaks.items()
    ]
    table = pd.DataFrame(rows, columns=["method", *AXES, "seconds", "weights_bytes", "peak_bytes"])
    to_training, to_weights, exponents, _ = summary(table).values()
    assert to_training[ONCE].tolist() == pytest.approx([0.2 * 256, 0.2 * 512])
    assert to_weights[TRAINING].tolist() == pytest.approx([25.6, 51.2])
    assert exponents.set_index("method").slope.to_dict() == pytest.approx({TRAINING: 1, ONCE: 2, EACH: 2})


def test_the_full_cases_are_of_one_transformer_by_length():
    assert [Case(12, 12, length) for length in (256, 512, 1024)] == FULL
