"""A network drawn as a quiver: the graph, its weights, a change of basis, and what it makes of the weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

from experiments.figures import style

RADIUS = 0.17
ALONG = 0.26  # where on an edge its weight is written, from its tail; edges that cross do so at the middle
PANELS = ("a quiver", "a network: weights and activations", "a change of basis", "teleported weights")


def draw_quiver(table: pd.DataFrame, title: str) -> Figure:
    """Four panels: the bare graph; weights on its edges; tau at its neurons; ``w tau_b / tau_a`` on its edges.

    Args:
        table: rows of ``measure/quiver.py``.
        title: of the whole picture.
    """
    figure = style.page(title, 4.6)
    neurons, edges = table[table["what"] == "neuron"], table[table["what"] == "edge"]
    places = _places(neurons)
    largest = edges[["weight", "teleported"]].abs().to_numpy().max()
    scale = TwoSlopeNorm(0.0, -largest, largest)
    contents = ((None, None), ("weight", "f"), (None, "tau"), ("teleported", "f"))
    for axes, name, (column, inside) in zip(figure.subplots(2, 2).flat, PANELS, contents, strict=True):
        _edges(axes, edges, places, column, scale)
        _neurons(axes, neurons, places, inside)
        axes.set_title(name)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.margins(0.05)
    what = "a weight is multiplied by tau at its edge's head and divided by that at its tail; inputs and outputs: 1"
    style.footnote(figure, table, what)
    return figure


def _places(neurons: pd.DataFrame) -> dict[tuple[int, int], tuple[float, float]]:
    """Layer and number of a neuron -> where it is drawn."""
    places = {}
    for layer, own in neurons.groupby("layer"):
        for height, neuron in zip(np.arange(len(own)) - (len(own) - 1) / 2, own["neuron"], strict=True):
            places[int(layer), int(neuron)] = (1.5 * float(layer), -0.85 * float(height))
    return places


def _edges(
    axes: Axes,
    edges: pd.DataFrame,
    places: dict[tuple[int, int], tuple[float, float]],
    column: str | None,
    scale: TwoSlopeNorm,
) -> None:
    for edge in edges.to_dict("records"):
        tail = places[int(edge["layer"]) - 1, int(edge["source"])]
        head = places[int(edge["layer"]), int(edge["neuron"])]
        color = colormaps["coolwarm"](scale(edge[column])) if column else style.GRAY
        line = FancyArrowPatch(tail, head, arrowstyle="-|>", mutation_scale=6, color=color, linewidth=1.1, zorder=1)
        line.set_clip_on(False)
        line.shrinkA = line.shrinkB = 11
        axes.add_patch(line)
        if column:
            x, y = (a + ALONG * (b - a) for a, b in zip(tail, head, strict=True))
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
            axes.text(x, y, f"{edge[column]:.2f}", ha="center", va="center", fontsize=5.5, bbox=box, zorder=2)


def _neurons(
    axes: Axes, neurons: pd.DataFrame, places: dict[tuple[int, int], tuple[float, float]], inside: str | None
) -> None:
    last = neurons["layer"].max()
    for neuron in neurons.to_dict("records"):
        x, y = places[int(neuron["layer"]), int(neuron["neuron"])]
        hidden = 0 < neuron["layer"] < last
        axes.add_patch(Circle((x, y), RADIUS, facecolor="white", edgecolor="black", linewidth=0.8, zorder=3))
        if hidden:  # a loop at each hidden neuron: its activation
            top = y + 0.8 * RADIUS
            loop = FancyArrowPatch(
                (x - 0.1, top), (x + 0.1, top), connectionstyle="arc3,rad=-1.6", arrowstyle="-|>", mutation_scale=5
            )
            loop.set(color=style.GRAY, linewidth=0.8, zorder=2)
            axes.add_patch(loop)
        if inside == "tau":
            axes.text(x, y, f"{neuron['tau']:.2g}", ha="center", va="center", fontsize=5.5, zorder=4)
        elif inside and hidden:
            axes.text(x, y, inside, ha="center", va="center", fontsize=6.5, style="italic", zorder=4)
    axes.autoscale_view()
