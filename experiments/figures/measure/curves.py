"""What a run wrote down: its losses, and when it teleported."""

from __future__ import annotations

import pandas as pd

from experiments.figures.runs import FigureRun
from experiments.run.runs import load_table


def measure_curves(run: FigureRun) -> pd.DataFrame:
    """A row an evaluation and a row a teleport, told apart by ``event``: ``evaluation`` or ``teleport``.

    A teleport's losses are those right after it, its ``seconds`` when it began, its ``duration`` how many it took,
    ``moved_layers`` the number of layers whose weights it changed: 0 is a no-op.

    Raises:
        UserError: a table of the run that cannot be read.
    """
    assert run.folder is not None
    evaluations = load_table(run.folder, "curve")
    evaluations = evaluations.assign(event="evaluation", duration=float("nan"), moved_layers=float("nan"))
    events = load_table(run.folder, "teleport_events")
    if events.empty:
        return evaluations
    layers = load_table(run.folder, "teleport_layers")
    moved = (layers["relative_change"] > 0).groupby(layers["event"]).sum()
    teleports = pd.DataFrame(
        {
            "event": "teleport",
            "step": events["step"],
            "epoch": events["epoch"],
            "seconds": events["started"],
            "duration": events["seconds"],
            "train_loss": events["train_loss_after"],
            "test_loss": events["test_loss_after"],
            "moved_layers": events["event"].map(moved).fillna(0).astype(int),
        }
    )
    return pd.concat([evaluations, teleports], ignore_index=True)
