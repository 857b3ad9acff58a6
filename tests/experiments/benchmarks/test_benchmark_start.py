"""What is launched ends as it should, the clock stops where it should, and nothing heavy comes before it is needed."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from experiments.benchmarks.start import (
    AIMS,
    BARE_STEP,
    FIRST_STEP,
    FULL,
    HELP,
    IMPORT,
    MISTAKE,
    NOTHING,
    Command,
    imports_of,
    launch,
    summary,
)

CPU = torch.device("cpu")


def test_help_and_mistakes_import_nothing_heavy(measured):
    assert measured.imported.tolist() == [NOTHING, NOTHING]
    assert (measured.modules > 100).all()


def test_a_first_step_waits_for_torch_alone():
    imported = imports_of(launch(FULL[FIRST_STEP], CPU, trace=True))
    assert {"torch", "numpy"} <= imported
    assert not {"torchvision", "scipy", "sklearn", "pandas", "matplotlib"} & imported


def test_the_clock_stops_at_the_line_that_is_waited_for():
    code = "import time; print('one', flush=True); print('two', flush=True); time.sleep(1); print('three')"
    first = launch(Command(("-c", code), until="two"), CPU)
    assert first.lines == ["one\n", "two\n"]
    whole = launch(Command(("-c", code)), CPU)
    assert whole.lines == ["one\n", "two\n", "three\n"]
    assert whole.seconds > 1


def test_imports_are_told_by_name():
    assert "colorsys" in imports_of(launch(Command(("-c", "import colorsys")), CPU, trace=True))
    assert "colorsys" not in imports_of(launch(Command(("-c", "")), CPU, trace=True))


@pytest.mark.parametrize(
    "command",
    [Command(("-c", "raise SystemExit(3)")), Command(("-c", ""), code=2), Command(("-c", "print('a')"), until="b")],
)
def test_what_does_not_end_as_it_should_is_not_timed(command):
    with pytest.raises(RuntimeError, match="ended with"):
        launch(command, CPU)


def test_aims_count_what_was_imported_too_much():
    cells = [
        (HELP, NOTHING),
        (MISTAKE, "numpy"),
        (BARE_STEP, "torch torch._dynamo"),
        (FIRST_STEP, "torch numpy pandas"),
    ]
    table = pd.DataFrame(cells, columns=["method", "imported"])
    assert [aim.figure(table) for aim in AIMS] == [0, 1, 2]
    assert math.isnan(AIMS[2].figure(table[table.method != BARE_STEP]))


def test_seconds_are_in_units_of_importing_torch_and_of_a_step_by_hand():
    cells = [(IMPORT, 2.0, 5, "torch"), (BARE_STEP, 4.0, 6, "torch"), (FIRST_STEP, 5.0, 7, "torch numpy")]
    table = pd.DataFrame(cells, columns=["method", "seconds", "modules", "imported"])
    found = summary(table)["seconds to begin"].set_index("method").loc[FIRST_STEP]
    assert found[f"in units of: {IMPORT}"] == 2.5
    assert found[f"in units of: {BARE_STEP}"] == 1.25
