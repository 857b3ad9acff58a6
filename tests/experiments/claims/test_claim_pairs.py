"""Rows become pairs: filters, reductions, curves at equal epochs and at equal seconds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from experiments.claims import curves, sides
from experiments.claims.ledger import EPOCHS, SECONDS, TUNED
from experiments.claims.sides import FIRST, SECOND, select
from experiments.errors import UserError
from tests.experiments.claims.test_verdicts import line

NONE, MOVED = {"teleport": "none"}, {"teleport": "nullspace"}


def run(teleport, seed, losses, seconds=1.0, **labels):
    rows = pd.DataFrame({"epoch": np.arange(len(losses), dtype=float), "train_loss": losses, "event": "evaluation"})
    own = {"data": "digits", "teleport": teleport, "seed": seed, **labels}
    name = "-".join(map(str, own.values()))
    rows = rows.assign(**own, step=rows["epoch"] * 10, seconds=rows["epoch"] * seconds, run=name)
    return rows.assign(duration=math.nan, hardware="a machine", reason="")


def table(*runs):
    return pd.concat(runs, ignore_index=True)


def curve(at=EPOCHS, epoch="last", **keys):
    own = {"quantity": "train_loss", "first": MOVED, "second": NONE, "pairs": ["seed"], "at": at, "epoch": epoch}
    return line(**own | keys)


def values(pairs):
    return [tuple(row) for row in pairs.table[[FIRST, SECOND]].to_numpy().round(12)]


TWO = table(
    run("none", 0, [2.0, 1.0, 0.5]),
    run("nullspace", 0, [2.0, 0.8, 0.2], 2.0),
    run("none", 1, [4.0, 2.0, 1.0]),
    run("nullspace", 1, [4.0, 1.6, 0.4], 2.0),
)


def test_runs_are_paired_by_seed_at_equal_epochs():
    assert values(curves.form(curve(epoch=1), TWO)) == [(0.8, 1.0), (1.6, 2.0)]
    assert values(curves.form(curve(), TWO)) == [(0.2, 0.5), (0.4, 1.0)]
    assert values(curves.form(curve(epoch=None, step=10), TWO)) == [(0.8, 1.0), (1.6, 2.0)]


def test_the_order_of_rows_does_not_matter():
    shuffled = TWO.sample(frac=1, random_state=0)
    assert values(curves.form(curve(SECONDS), shuffled)) == values(curves.form(curve(SECONDS), TWO))


def test_the_last_epoch_is_that_which_both_have():
    longer = table(run("none", 0, [2.0, 1.0, 0.5, 0.1]), run("nullspace", 0, [2.0, 0.8, 0.2]))
    assert values(curves.form(curve(), longer)) == [(0.2, 0.5)]


def test_the_second_side_may_be_read_at_another_epoch():
    assert values(curves.form(curve(epoch=1, second_epoch="last"), TWO)) == [(0.8, 0.5), (1.6, 1.0)]


def test_at_equal_seconds_both_are_read_when_the_second_reaches_the_epoch():
    """The teleported run takes twice as long: it is at its first epoch when the other ends its second."""
    assert values(curves.form(curve(SECONDS), TWO)) == [(0.8, 0.5), (1.6, 1.0)]
    halfway = curves.form(curve(SECONDS, epoch=1), TWO)
    assert values(halfway) == [(round(math.sqrt(2.0 * 0.8), 12), 1.0), (round(math.sqrt(4.0 * 1.6), 12), 2.0)]
    straight = curves.form(curve(SECONDS, epoch=1, unit="absolute"), TWO)
    assert values(straight) == [(1.4, 1.0), (2.8, 2.0)]


def test_at_equal_seconds_the_faster_side_may_be_the_first():
    fast = table(run("none", 0, [2.0, 1.0, 0.5]), run("nullspace", 0, [2.0, 0.8, 0.2], 0.5))
    assert values(curves.form(curve(SECONDS), fast)) == [(0.2, 1.0)]


@pytest.mark.parametrize("unit", [0.001, 0.3, 60.0])
def test_a_unit_of_time_does_not_matter(unit):
    scaled = TWO.assign(seconds=TWO["seconds"] * unit)
    assert values(curves.form(curve(SECONDS), scaled)) == values(curves.form(curve(SECONDS), TWO))


@pytest.mark.parametrize("at", [EPOCHS, SECONDS])
def test_a_run_that_diverged_has_the_value_that_it_started_from(at):
    rows = table(run("none", 0, [2.0, 1.0, 0.5]), run("nullspace", 0, [2.5, math.nan]))
    pairs = curves.form(curve(at), rows)
    assert values(pairs) == [(2.5, 0.5)]
    assert pairs.diverged == 1


def test_seconds_of_two_machines_are_not_compared():
    mixed = TWO.assign(hardware=np.where(TWO["teleport"] == "none", "one", "another"))
    with pytest.raises(curves.MixedHardware, match="across hardware"):
        curves.form(curve(SECONDS), mixed)
    assert len(curves.form(curve(EPOCHS), mixed).table) == 2


def test_a_run_without_its_pair_is_counted():
    pairs = curves.form(curve(), TWO[(TWO["teleport"] == "none") | (TWO["seed"] == 0)])
    assert (len(pairs.table), pairs.missing) == (1, 1)


def test_a_failed_run_says_why_nothing_is_measured():
    failed = pd.DataFrame({"data": ["digits"], "teleport": ["nullspace"], "seed": [0], "reason": ["it is not tuned"]})
    rows = pd.concat([TWO[TWO["teleport"] == "none"], failed], ignore_index=True)
    assert curves.form(curve(), rows).reason == "its run has no result: it is not tuned"
    assert "no rows with teleport=nullspace" in curves.form(curve(), TWO[TWO["teleport"] == "none"]).reason


@pytest.mark.parametrize(
    ("direction", "moved", "measured"),
    [("not lower", 0, False), ("equal", 0, False), ("not lower", 3, True), ("lower", 0, True)],
)
def test_a_side_whose_teleports_moved_nothing_shows_no_absence_of_an_effect(direction, moved, measured):
    event = run("nullspace", 0, [2.0]).assign(event="teleport", moved_layers=moved)
    pairs = curves.form(curve(direction=direction), table(TWO, event))
    assert bool(len(pairs.table)) == measured
    assert pairs.reason == ("" if measured else "no teleport of teleport=nullspace moved anything")


def test_an_ambiguous_pair_is_refused():
    with pytest.raises(UserError, match=r"the claim 'c' is ambiguous: several runs .* have the same data"):
        curves.form(curve(pairs=["data"]), TWO)


def rates(*losses, teleport):
    return [
        run(teleport, 0, [2.0, loss], **{"optimizer.lr": rate})
        for rate, loss in zip((0.1, 0.01, 0.001), losses, strict=True)
    ]


def test_the_mean_over_rates_needs_every_rate():
    rows = table(*rates(1.0, 0.5, 1.5, teleport="none"), *rates(0.3, 0.6, 0.9, teleport="nullspace"))
    over = curve(average={"optimizer.lr": [0.1, 0.01, 0.001]})
    assert values(curves.form(over, rows)) == [(pytest.approx(0.6), pytest.approx(1.0))]
    fewer = rows[(rows["optimizer.lr"] != 0.01) | (rows["teleport"] == "none")]
    assert curves.form(over, fewer).reason == "no pair has all of optimizer.lr 0.1, 0.01, 0.001"


def test_each_side_gets_its_own_best_rate():
    rows = table(*rates(1.0, 0.5, 1.5, teleport="none"), *rates(math.nan, 0.6, 0.4, teleport="nullspace"))
    assert values(curves.form(curve(TUNED, best_over="optimizer.lr"), rows)) == [(0.4, 0.5)]
    two = rows[rows["optimizer.lr"] != 0.1]
    assert "2 of at least 3" in curves.form(curve(TUNED, best_over="optimizer.lr"), two).reason


ROWS = pd.DataFrame(
    {
        "kind": ["a", "a", "b", "b"],
        "step": [0, 1, 0, 1],
        "bias": [True, True, False, False],
        "rho": [math.nan, math.nan, 0.1, 0.3],
        "loss": [1.0, 1.5, 2.0, 2.5],
        "other": [1.0, 1.0, 1.0, 1.0],
        "reason": "",
    }
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"kind": "a"}, [0, 1]),
        ({"kind": ["a", "b"], "step": 1}, [1, 3]),
        ({"step": {"above": 0}}, [1, 3]),
        ({"loss": {"at_least": 1.5, "below": 2.5}}, [1, 2]),
        ({"loss": {"at_most": 1.5}}, [0, 1]),
        ({"bias": False}, [2, 3]),
        ({"rho": None}, [0, 1]),
        ({"rho": 0.1 + 0.2}, [3]),
        ({"nothing": 1}, []),
        ({}, [0, 1, 2, 3]),
    ],
)
def test_rows_are_selected_by_values(wanted, expected):
    assert list(select(ROWS, wanted).index) == expected


def test_many_rows_are_compared_with_one():
    own = line(first={"step": {"above": 0}}, second={"step": 0}, pairs=["kind"], observations=["step"])
    assert values(sides.form(own, ROWS)) == [(1.5, 1.0), (2.5, 2.0)]
    crossed = line(first={"kind": "b"}, second={"kind": "a", "step": 0}, pairs=[], observations=["step"])
    assert values(sides.form(crossed, ROWS)) == [(2.0, 1.0), (2.5, 1.0)]


def test_two_columns_of_the_same_rows():
    own = line(first={}, second={}, second_quantity="other", pairs=["kind", "step"], deviation_from=2.0)
    assert values(sides.form(own, ROWS)) == [(1.0, 1.0), (0.5, 1.0), (0.0, 1.0), (0.5, 1.0)]


@pytest.mark.parametrize(("reduce", "expected"), [("max", 2.5), ("min", 2.0), ("mean", 2.25), ("sum", 4.5)])
def test_rows_are_reduced(reduce, expected):
    own = line(first={"kind": "b"}, second=None, value=0, pairs=["kind"], reduce=reduce)
    assert list(sides.form(own, ROWS).table[FIRST]) == [expected]
    alone = line(first={"kind": "b"}, second=None, value=0, pairs=[], reduce=reduce)
    assert list(sides.form(alone, ROWS).table[FIRST]) == [expected]


def test_ambiguous_rows_are_refused():
    with pytest.raises(UserError, match="the claim 'c' is ambiguous: several rows of its first side"):
        sides.form(line(first={}, second=None, value=0, pairs=["kind"]), ROWS)


def test_the_share_of_teleports_in_the_seconds_of_a_run():
    moved = run("nullspace", 0, [2.0, 1.0, 0.5], 2.0)
    events = moved.iloc[:2].assign(event="teleport", duration=[0.5, 0.3])
    own = line(quantity="teleport_share", first=MOVED, second=None, value=0.1, pairs=["seed"])
    assert list(sides.form(own, table(moved, events)).table[FIRST]) == [pytest.approx(0.8 / 4.0)]


def test_a_listed_value_without_a_pair_is_named():
    own = curve(pairs=["data", "seed"], first=MOVED | {"data": ["digits", "mnist"]})
    assert sides.absent(own, curves.form(own, TWO).table) == "data=mnist"
    assert sides.absent(curve(pairs=["data", "seed"]), TWO) == ""
