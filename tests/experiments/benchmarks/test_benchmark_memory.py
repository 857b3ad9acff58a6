"""Peaks are of the work alone, of a process of its own, and the teleports that are measured move layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.benchmarks import memory_process
from experiments.benchmarks.against import BEFORE, NOW
from experiments.benchmarks.memory import AIMS, AXES, EACH, FULL, METHODS, ONCE, TRAINING, Case, summary


def test_teleports_take_their_steps_and_move(measured):
    teleports = measured[measured.method != TRAINING]
    assert (teleports.steps_taken == 2).all()
    assert (teleports.moved > 0).all()
    width, vocabulary = 64, 11
    block = 4 * (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width + 4 * width
    whole = 2 * width + block + (width + 1) * vocabulary + (vocabulary + 8) * width
    assert set(measured.weights_bytes) == {4 * whole}


def test_a_peak_is_felt_after_it_is_over():
    """And one before the start is not."""
    code = (
        "import torch\n"
        "from experiments.benchmarks.memory_process import _peak, _start\n"
        "cpu = torch.device('cpu')\n"
        "torch.ones(2**26)\n"  # 256 MiB, given back at once
        "before = _start(cpu)\n"
        "torch.ones(2**24)\n"
        "print((_peak(cpu) - before) / 2**20)\n"
    )
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120).stdout
    assert float(told) == pytest.approx(64, rel=0.1)


def test_ratios_and_aims_follow_from_bytes_and_seconds():
    peaks = dict(zip(METHODS, (10, 400, 80, 200, 100, 3e9, 1e9, 2e9), strict=True))
    rows = [
        (method, *vars(Case(length=length)).values(), 2.0 if NOW in method else 1.0, 100, length * peak / 256)
        for length in (256, 512)
        for method, peak in peaks.items()
    ]
    table = pd.DataFrame(rows, columns=["method", *AXES, "seconds", "weights_bytes", "peak_bytes"])
    to_training, to_weights, once, once_seconds, each, _ = summary(table).values()
    assert to_training[f"{ONCE}, {NOW}"].tolist() == pytest.approx([8, 8])
    assert to_weights[TRAINING].tolist() == pytest.approx([0.1, 0.2])
    assert once[f"{ONCE}, {NOW}"].tolist() == pytest.approx([0.2, 0.2])
    assert each[f"{EACH}, {NOW}"].tolist() == pytest.approx([0.5, 0.5])
    assert once_seconds[f"{ONCE}, {BEFORE}"].tolist() == [1, 1]
    assert [aim.figure(table) for aim in AIMS] == pytest.approx([0.5, 0.2, 10, 2, 8 / 3])
    assert {(case.layers, case.length) for case in FULL} == {(6, 256), (6, 1024), (12, 256), (12, 1024)}


@pytest.mark.slow
def test_three_budgets_are_kept_and_a_smaller_one_is_refused():
    """Peaks of whole processes on one transformer: by a record, by the graph of a gradient, by tangents."""
    root, chosen = Path(__file__).parents[3], []
    for budget in ("900MB", "350MB", "250MB", "100MB"):
        settings = {"steps": 2, "memory": budget}
        asked = {"case": vars(Case(4, 4, 384, 500)), "settings": settings, "threads": 1, "device": "cpu"}
        command = [sys.executable, "-P", memory_process.__file__, json.dumps(asked)]
        path = {**os.environ, "PYTHONPATH": str(root)}
        done = subprocess.run(command, env=path, capture_output=True, text=True, timeout=300)
        if budget == "100MB":
            assert "ValueError: memory=95 MiB is too little: this event needs about" in done.stderr
            return
        found = json.loads(done.stdout)
        assert found["moved"] > 0
        assert found["peak_bytes"] <= float(budget.removesuffix("MB")) * 1e6
        chosen.append(found["chosen"].partition(" (")[0])
    assert chosen == [
        "the whole record of an evaluation",
        "the whole graph of a gradient",
        "products of the Hessian by tangents, without a graph of a gradient",
    ]
