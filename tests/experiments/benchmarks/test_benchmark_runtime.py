"""The run time table: who does all the work it is timed for."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments.benchmarks.common import base_of
from experiments.benchmarks.runtime import AXES, FULL, Case, exponents, summary


def test_nobody_wins_by_doing_nothing(measured):
    full = measured[measured.method != "nullspace"]
    assert (full.steps_taken == full.batches * full.steps).all()
    exact = measured[measured.method == "nullspace"]
    idle = exact.null_dimensions == 0
    assert idle.tolist() == (exact.width < exact.samples).tolist()  # 20 samples span 16 dimensions and not 32
    assert (exact.steps_taken[idle] == 0).all()
    assert (exact.steps_taken[~idle] == exact.batches[~idle] * exact.steps[~idle]).all()


def test_ratios_are_to_the_null_space_that_takes_all_steps(measured):
    first = next(iter(summary(measured).values())).iloc[0]
    seconds = measured[:5].set_index("method").seconds
    assert first["nullspace 0.999"] == 1
    assert first["symmetry 2024"] == pytest.approx(seconds["symmetry 2024"] / seconds["nullspace 0.999"])


def test_the_full_cases_cross_in_the_settings_of_the_paper():
    assert base_of(pd.DataFrame(FULL), AXES).to_dict() == vars(Case())
    assert Case() == Case(512, 200, 2, 8, 8)
    assert Case() in FULL
    assert len(set(FULL)) == len(FULL)


def test_exponents_leave_out_what_took_no_step():
    cases = [Case(width) for width in (128, 256, 512)] + [Case(steps=steps) for steps in (1, 2)]
    table = pd.DataFrame(cases).assign(method="nullspace", steps_taken=64)
    table["seconds"] = 3.0 * table["width"] ** 2 * table["steps"]
    table.loc[table["width"] == 128, ["seconds", "steps_taken"]] = 1e-3, 0
    found = exponents(table).set_index("axis")
    assert found["slope"].to_dict() == pytest.approx({"width": 2.0, "steps": 1.0})
    assert found["values"].to_dict() == {"width": 2, "steps": 3}


def test_every_axis_has_an_exponent_of_the_exact_null_space():
    table = pd.DataFrame(FULL).assign(method="nullspace", seconds=1.0)
    table["steps_taken"] = (table["width"] > table["samples"]) * table["batches"] * table["steps"]
    assert (exponents(table).set_index("axis")["values"] >= 3).to_dict() == dict.fromkeys(AXES, True)
