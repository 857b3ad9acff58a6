"""A small network as a quiver: neurons with their change of basis, edges with their weights before and after."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch

from experiments.figures import page, style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import Tensor, nn


def measure_quiver(run: FigureRun | None, *, widths: Sequence[int], range: float, seed: int = 0) -> pd.DataFrame:
    """A ReLU network without biases, and one intra-landscape teleport of it.

    Args:
        run: none.
        widths: neurons of each layer, inputs and outputs included.
        range: of the change of basis.
        seed: of weights and change of basis.

    Returns:
        one row per neuron and per edge: ``what`` (``neuron`` or ``edge``), ``layer`` (of the edge's head), ``neuron``
        (the edge's head), ``source`` (the edge's tail), ``tau`` of a neuron, ``weight`` and ``teleported`` of an edge.
    """
    import torch
    from torch import nn

    from teleport import ChangeOfBasis

    model = _network(widths, seed)
    before = [layer.weight.detach().clone() for layer in model if isinstance(layer, nn.Linear)]
    moved = copy.deepcopy(model)
    ChangeOfBasis(range=range, seed=seed)(moved, [(torch.ones(1, widths[0], dtype=torch.float64),)])
    after = [layer.weight.detach() for layer in moved if isinstance(layer, nn.Linear)]
    rows = []
    for layer, tau in enumerate(_taus(before, after)):
        for neuron, value in enumerate(tau.tolist()):
            rows.append({"what": "neuron", "layer": layer, "neuron": neuron, "tau": value})
    for layer, (weight, teleported) in enumerate(zip(before, after, strict=True), 1):
        for head, tails in enumerate(weight.tolist()):
            for tail, value in enumerate(tails):
                place = {"what": "edge", "layer": layer, "neuron": head, "source": tail}
                rows.append(place | {"weight": value, "teleported": teleported[head, tail].item()})
    return pd.DataFrame(rows)


def _network(widths: Sequence[int], seed: int) -> nn.Sequential:
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out, bias=False, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.normal_(generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _taus(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Tensor]:
    """The tau of each layer's neurons, computed from the weights by ``w' = w tau_b / tau_a``; that of inputs is 1."""
    import torch

    taus = [torch.ones(before[0].shape[1], dtype=torch.float64)]
    for old, new in zip(before, after, strict=True):
        taus.append((new / old)[:, 0] * taus[-1][0])
    return taus


RADIUS = 0.17
ALONG = 0.26  # position of the weight on its edge, from the tail; edges cross at the middle
POSITIVE, NEGATIVE = style.PALETTE[1], style.PALETTE[0]
PANELS = ("a quiver", "a network: weights and activations", "a change of basis", "teleported weights")


def draw_quiver(table: pd.DataFrame, title: str) -> page.Page:
    """Four panels: the bare graph; weights on its edges; tau at its neurons; ``w tau_b / tau_a`` on its edges.

    Args:
        table: rows of :func:`measure_quiver`.
        title: of the whole picture.
    """
    figure = page.start(title, 4.1)
    neurons, edges = table[table["what"] == "neuron"], table[table["what"] == "edge"]
    places = _places(neurons)
    largest = edges[["weight", "teleported"]].abs().to_numpy().max()
    contents = ((None, None), ("weight", "f"), (None, "tau"), ("teleported", "f"))
    for axes, name, (column, inside) in zip(figure.subplots(2, 2).flat, PANELS, contents, strict=True):
        _edges(axes, edges, places, column, largest)
        _neurons(axes, neurons, places, inside)
        axes.set_title(name)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.margins(0.05)
    what = (
        "a weight is multiplied by tau at its edge's head and divided by that at its tail; inputs and outputs: 1; "
        "orange: positive, blue: negative, wide: large"
    )
    page.footnote(figure, table, what)
    return figure


def _places(neurons: pd.DataFrame) -> dict[tuple[int, int], tuple[float, float]]:
    """Layer and number of a neuron -> its position."""
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
    largest: float,
) -> None:
    for edge in edges.to_dict("records"):
        tail = places[int(edge["layer"]) - 1, int(edge["source"])]
        head = places[int(edge["layer"]), int(edge["neuron"])]
        value = edge[column] if column else largest / 3
        color = (POSITIVE if value > 0 else NEGATIVE) if column else style.GRAY
        width = 0.5 + 2 * abs(value) / largest
        line = FancyArrowPatch(tail, head, arrowstyle="-|>", mutation_scale=6, color=color, linewidth=width, zorder=1)
        line.set_clip_on(False)
        line.shrinkA = line.shrinkB = 11
        axes.add_patch(line)
        if column:
            x, y = (a + ALONG * (b - a) for a, b in zip(tail, head, strict=True))
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
            axes.text(
                x,
                y,
                f"{value:.2f}".replace("-", "\N{MINUS SIGN}"),
                ha="center",
                va="center",
                fontsize=6,
                bbox=box,
                zorder=2,
            )


def _neurons(
    axes: Axes, neurons: pd.DataFrame, places: dict[tuple[int, int], tuple[float, float]], inside: str | None
) -> None:
    last = neurons["layer"].max()
    for neuron in neurons.to_dict("records"):
        x, y = places[int(neuron["layer"]), int(neuron["neuron"])]
        hidden = 0 < neuron["layer"] < last
        axes.add_patch(Circle((x, y), RADIUS, facecolor="white", edgecolor="black", linewidth=0.8, zorder=3))
        if hidden:  # a loop for the activation
            top = y + 0.8 * RADIUS
            loop = FancyArrowPatch(
                (x - 0.1, top), (x + 0.1, top), connectionstyle="arc3,rad=-1.6", arrowstyle="-|>", mutation_scale=5
            )
            loop.set(color=style.GRAY, linewidth=0.8, zorder=2)
            axes.add_patch(loop)
        if inside == "tau":
            axes.text(x, y, f"{neuron['tau']:.2g}", ha="center", va="center", fontsize=6, zorder=4)
        elif inside and hidden:
            axes.text(x, y, inside, ha="center", va="center", fontsize=6.5, style="italic", zorder=4)
    axes.autoscale_view()
