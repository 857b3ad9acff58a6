from __future__ import annotations

import pytest

from experiments.errors import UserError
from experiments.run.runs import load_table


def test_a_table_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"curve\.csv' cannot be read"):
        load_table(tmp_path, "curve")
    (tmp_path / "curve.csv").write_text("")
    with pytest.raises(UserError, match="delete the folder"):
        load_table(tmp_path, "curve")
