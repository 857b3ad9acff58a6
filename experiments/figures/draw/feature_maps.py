"""Feature maps before and after a change of basis, on the same scale."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.figures import style

STATES = {"before": "before", "after": "after"}
ACTIVATIONS = {"relu": "ReLU", "tanh": "tanh"}
LAYERS = {"relu": "stem"}  # torchvision's name of the stem's activation, whatever it is


def draw_feature_maps(table: pd.DataFrame, title: str) -> Figure:
    """For each activation and layer two rows of maps, before and after; the four share a scale of grey by layer.

    Args:
        table: rows of ``measure/feature_maps.py``, of runs that differ in their activation.
        title: of the whole picture.
    """
    blocks = list(table.groupby(["model.activation", "layer"], sort=False, dropna=False))
    maps = int(table["channel"].max() + 1) if "channel" in table and table["channel"].notna().any() else 1
    figure = style.page(title, 0.9 + 1.75 * len(blocks))
    axes = figure.subplots(2 * len(blocks), maps, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    for place, ((activation, layer), rows) in enumerate(blocks):
        lines = axes[2 * place : 2 * place + 2]
        if (rows["reason"] != "").any():
            lines[0, 0].set_title(textwrap.fill(rows["reason"].iloc[0], 60), loc="left", fontsize=5.5)
            continue
        stacks = {state: _maps(rows[rows["state"] == state]) for state in STATES}
        low, high = _limits(stacks)
        for (state, name), line in zip(STATES.items(), lines, strict=True):
            for axis, image in zip(line, stacks[state], strict=True):
                axis.imshow(image, cmap="gray", vmin=low, vmax=high)
            line[0].set_ylabel(
                f"{ACTIVATIONS.get(activation, activation)}\n{LAYERS.get(layer, layer)}\n{name}", fontsize=6
            )
    worst, width = table["output_difference"].max(), table["model.width"].iloc[0] if "model.width" in table else 1
    what = (
        f"{width:g} of the paper's channels, of which these are the first; a teleport multiplies each by a number; "
        f"outputs differ by {worst:.0e} of the largest"
    )
    style.footnote(figure, table, what)
    return figure


def _maps(rows: pd.DataFrame) -> np.ndarray:
    """[channels, height, width] of the rows of one layer in one state."""
    pixels = rows[[column for column in rows if column[0] == "x" and column[1:].isdigit()]].dropna(axis="columns")
    return pixels.to_numpy().reshape(rows["channel"].nunique(), -1, pixels.shape[1])


def _limits(stacks: dict[str, np.ndarray]) -> tuple[float, float]:
    return min(stack.min() for stack in stacks.values()), max(stack.max() for stack in stacks.values())
