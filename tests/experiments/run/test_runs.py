from __future__ import annotations

import json

import pytest

from experiments.errors import UserError
from experiments.run.runs import load_table, read_summary


def test_a_table_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"curve\.csv' cannot be read"):
        load_table(tmp_path, "curve")
    (tmp_path / "curve.csv").write_text("")
    with pytest.raises(UserError, match="delete the folder"):
        load_table(tmp_path, "curve")


@pytest.mark.parametrize("diverged", [False, True])
@pytest.mark.parametrize("key", ["train_loss", "test_loss"])
def test_a_loss_that_is_null_has_no_number_at_the_end_of_the_curve(tmp_path, key, diverged):
    """Null stands for a number that is not finite; a test loss can be infinite in a run that did not diverge."""
    summary = {"train_loss": 0.5, "test_loss": 0.5, "diverged": diverged} | {key: None}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    for ended in ("inf", "nan", ""):
        row = {"train_loss": "0.5", "test_loss": "0.5"} | {key: ended}
        (tmp_path / "curve.csv").write_text(f"train_loss,test_loss\n1.0,1.0\n{row['train_loss']},{row['test_loss']}\n")
        assert read_summary(tmp_path)[key] is None
    (tmp_path / "curve.csv").write_text("train_loss,test_loss\n1.0,1.0\n0.5,0.5\n")
    with pytest.raises(UserError, match=rf"its '{key}' is null, but the curve ends at 0\.5; delete the folder"):
        read_summary(tmp_path)
