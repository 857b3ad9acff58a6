"""The way of a point over a function of two variables."""

from __future__ import annotations

import pandas as pd

from experiments.errors import UserError
from experiments.figures.runs import FigureRun
from experiments.run.runs import load_table


def measure_trajectory(run: FigureRun) -> pd.DataFrame:
    """A row for each time that the run looked at its model, in the order of the way.

    Returns:
        rows ``step``, ``moment`` (``evaluation``, ``before teleport`` or ``after teleport``), ``x``, ``y``, ``loss``.

    Raises:
        UserError: a run whose model is not a point of two coordinates, or a table of it that cannot be read.
    """
    assert run.folder is not None
    if not (run.folder / "positions.csv").exists():
        raise UserError("the measure 'trajectory' needs a run with model=point")
    positions = load_table(run.folder, "positions")
    count = positions["coordinate"].nunique()
    if count != 2:
        raise UserError(f"the measure 'trajectory' needs a model of two coordinates, not of {count}")
    places = positions.pivot(index=["step", "moment"], columns="coordinate", values="value")
    places = places.set_axis(["x", "y"], axis="columns")
    curve, events = load_table(run.folder, "curve"), load_table(run.folder, "teleport_events")
    losses = {  # in the order of the way, which is not that of the alphabet
        "evaluation": curve.set_index("step")["train_loss"],
        "before teleport": events.set_index("step")["train_loss_before"],
        "after teleport": events.set_index("step")["train_loss_after"],
    }
    known = pd.concat(losses, names=["moment", "step"]).rename("loss").reset_index()
    known["order"] = known["moment"].map({moment: number for number, moment in enumerate(losses)})
    rows = known.merge(places, on=["step", "moment"]).sort_values(["step", "order"], ignore_index=True)
    return rows[["step", "moment", "x", "y", "loss"]]
