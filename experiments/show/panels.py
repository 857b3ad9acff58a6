"""The panels in which runs are shown, the same for the picture and the page: losses, and what each teleport did."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from experiments.run.pictures import spans_decades
from experiments.show.shown_run import ShownRun


@dataclass(frozen=True)
class Panel:
    """A quantity of the evaluations, or of the events, against an axis."""

    title: str
    x: str
    y: str
    of_events: bool = False

    def values(self, run: ShownRun) -> pd.DataFrame:
        """The columns ``x`` and ``y`` of a run."""
        table = run.events if self.of_events else run.curve
        if self.y == "growth":
            table = table.assign(growth=table["norm_after"] / table["norm_before"])
        if self.y == "drift":
            table = table.assign(drift=table["test_loss_after"] / table["test_loss_before"] - 1)
        return table.rename(columns={self.x: "at", self.y: "value"})[["at", "value"]].astype(float)


LOSSES = tuple(Panel(f"{split} loss", x, f"{split}_loss") for split in ("train", "test") for x in ("epoch", "seconds"))
EVENTS = (
    Panel("gradient norm, times", "epoch", "growth", of_events=True),
    Panel("test loss, relative change", "epoch", "drift", of_events=True),
    Panel("layers that moved", "epoch", "moved_layers", of_events=True),
)


def panels(runs: list[ShownRun]) -> list[tuple[Panel, ...]]:
    """Rows of panels: losses, and the events if there are any."""
    return [LOSSES[:2], LOSSES[2:], *([EVENTS] if any(len(run.events) for run in runs) else [])]


def spread_over_decades(panel: Panel, runs: list[ShownRun]) -> bool:
    """Whether a panel of losses has a logarithmic axis."""
    return not panel.of_events and spans_decades([each for run in runs for each in panel.values(run)["value"]])
