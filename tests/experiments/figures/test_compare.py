from __future__ import annotations

import math

import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.figures.compare import compare

COLUMNS = {"scale": "smoke", "results_version": 1, "run": "r", "hardware": "h", "note": "", "reason": ""}


def run(teleport: str, seed: int, rows: list[tuple[float, float]], durations: tuple[float, ...] = ()) -> pd.DataFrame:
    labels = {"data": "d", "model": "m", "optimizer": "sgd", "teleport": teleport, "seed": seed}
    evaluations = [
        {"step": n, "seconds": s, "train_loss": loss, "test_loss": 2 * loss, "event": "evaluation"}
        for n, (s, loss) in enumerate(rows)
    ]
    teleports = [{"step": 0, "seconds": 0.0, "train_loss": 9.0, "event": "teleport", "duration": d} for d in durations]
    return pd.DataFrame([labels | row for row in evaluations + teleports]).assign(**COLUMNS)


def test_ends_spread_and_share_are_those_of_the_rows():
    none = [run("none", seed, [(0, 1.0), (2, end)]) for seed, end in ((0, 0.5), (1, 0.7))]
    moved = [run("nullspace", seed, [(0, 1.0), (2, 0.25), (4, 0.0625)], (0.5, 0.5)) for seed in (0, 1)]
    compared = compare(pd.concat([*none, *moved])).set_index("teleport")
    assert compared.loc["none", "train_end"] == pytest.approx(0.6)
    assert compared.loc["none", "train_end_std"] == pytest.approx(math.sqrt(0.02))
    assert compared.loc["none", "test_end"] == pytest.approx(1.2)
    assert compared.loc["nullspace", "teleport_share"] == pytest.approx(0.25)
    assert compared.loc["nullspace", "seeds"] == 2
    assert compared.loc["none", "same_seconds"] == pytest.approx(0.6)  # it is the fastest: its own end
    assert compared.loc["nullspace", "same_seconds"] == pytest.approx(0.25)


def test_the_loss_at_a_time_lies_on_a_straight_line_of_the_logarithm():
    table = pd.concat([run("none", 0, [(0, 1.0), (1, 0.5)]), run("nullspace", 0, [(0, 1.0), (4, 1e-4)])])
    assert compare(table).set_index("teleport").loc["nullspace", "same_seconds"] == pytest.approx(0.1)


def test_runs_that_differ_in_another_key_are_methods_of_their_own():
    slow = run("none", 0, [(0, 1.0), (1, 0.5)])
    fast = run("none", 0, [(0, 1.0), (1, 0.3)])
    slow.insert(4, "optimizer.lr", 0.01)
    fast.insert(4, "optimizer.lr", 0.1)
    compared = compare(pd.concat([slow, fast]))
    assert compared.set_index("optimizer.lr")["train_end"].to_dict() == {0.01: 0.5, 0.1: 0.3}


def test_a_table_without_losses_is_refused():
    with pytest.raises(UserError, match="figure of curves"):
        compare(pd.DataFrame({"share": [1.0], **{key: [value] for key, value in COLUMNS.items()}}))
