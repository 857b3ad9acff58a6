"""The table: tidy, the same numbers after writing and reading, and never mixed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.errors import UserError
from experiments.figures import table


def small(values=(1.0, 2.0)):
    rows = pd.DataFrame({"step": range(len(values)), "loss": values, "run": "r", "hardware": "h"})
    return table.gather([({"data": "a", "seed": 0}, rows)], "smoke", 1)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=1, max_size=20))
def test_numbers_come_back_bit_for_bit(values):
    back = table.parse(table.to_csv(small(values)), "it")
    np.testing.assert_array_equal(back["loss"].to_numpy(float), np.array(values))


def test_cells_are_stacked_with_their_labels_and_failures_keep_theirs():
    good = pd.DataFrame({"loss": [1.0, 2.0], "run": "r"})
    bad = pd.DataFrame({"reason": ["it broke"]})
    whole = table.gather([({"data": "a", "seed": 0}, good), ({"data": "b", "lr": 0.1}, bad)], "quick", 3)
    assert whole["data"].tolist() == ["a", "a", "b"]
    assert whole["reason"].tolist() == ["", "", "it broke"]
    assert whole["run"].tolist() == ["r", "r", ""]
    assert whole["loss"].tolist()[:2] == [1.0, 2.0]
    assert np.isnan(whole["loss"].iloc[2])
    assert list(whole.columns[-6:]) == ["scale", "results_version", "run", "hardware", "note", "reason"]


def test_a_reason_that_reads_like_a_missing_value_is_text():
    whole = table.gather([({}, pd.DataFrame({"reason": ["NA"], "x": [1.0]}))], "quick", 1)
    assert table.parse(table.to_csv(whole), "it")["reason"].tolist() == ["NA"]


@pytest.mark.parametrize(("column", "values"), [("scale", ["quick", "paper"]), ("results_version", [1, 2])])
def test_what_must_not_be_compared_is_refused(tmp_path, column, values):
    mixed = small()
    mixed[column] = values
    (tmp_path / "t.csv").write_text(table.to_csv(mixed))
    with pytest.raises(UserError, match=f"mixes {column} {values[0]} and {values[1]}"):
        table.read(tmp_path / "t.csv")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "scale,results_version,run,hardware,note,reason\n", 'a,"b\n1'])
def test_what_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match="make its figure again"):
        table.read(tmp_path / "t.csv")


def test_a_table_that_is_not_there():
    with pytest.raises(UserError, match=r"'none\.csv' cannot be read"):
        table.read(table.Path("none.csv"))


def test_seconds_of_two_machines_are_refused():
    whole = small()
    table.refuse_mixed_hardware(whole)
    whole["hardware"] = ["one", "other"]
    with pytest.raises(UserError, match="one and on other"):
        table.refuse_mixed_hardware(whole)
