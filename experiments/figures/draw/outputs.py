"""What changes of basis leave of the outputs of several networks, in single and in double precision."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import style

SAMPLINGS = {"intra": style.PALETTE[0], "inter": style.PALETTE[1]}
FORMS = {"in place": "o", "teleported activations": "D"}
NAMES = {
    "resnet18_tanh": "ResNet18, tanh",
    "inception": "Inception-style",
    "unet": "U-Net-style",
    "functional": "functional style",
    "encoder": "transformer encoder",
}
PRECISIONS = {"float32": 2.0**-24, "float64": 2.0**-53}
"""Their unit roundoff."""


def draw_outputs(table: pd.DataFrame, title: str) -> Figure:
    """A panel a precision: by network, the relative difference of the outputs, a mark a sampling and form.

    Args:
        table: rows of ``measure/outputs.py``.
        title: of the whole picture.
    """
    networks = list(table["network"].unique())
    figure = style.page(title, 1.3 + 0.19 * len(networks))
    panels = figure.subplots(1, len(PRECISIONS), sharey=True)
    for axes, (precision, roundoff) in zip(panels, PRECISIONS.items(), strict=True):
        for number, (sampling, color) in enumerate(SAMPLINGS.items()):
            for form, marker in FORMS.items():
                rows = table[
                    (table["precision"] == precision) & (table["sampling"] == sampling) & (table["form"] == form)
                ]
                y = [networks.index(network) + 0.22 * (number - 0.5) for network in rows["network"]]
                axes.plot(rows["difference"].clip(lower=roundoff / 10), y, marker, color=color, markersize=3.2)
        axes.axvline(roundoff, color=style.GRAY, linestyle=":", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlabel("max |difference| / max |output|")
        axes.set_title(precision)
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(networks)), [_name(network) for network in networks])
    panels[0].set_ylim(len(networks) - 0.5, -0.5)
    handles = [Line2D([], [], linestyle="", marker="s", color=color, label=name) for name, color in SAMPLINGS.items()]
    handles += [
        Line2D([], [], linestyle="", marker=marker, color=style.GRAY, markersize=4, label=name)
        for name, marker in FORMS.items()
    ]
    style.legend(figure, handles)
    notes = ["the largest of several teleports of one network", "dotted: the unit roundoff"]
    still = table[table["moved"] == 0]
    for form, rows in still.groupby("form"):
        notes.append(f"nothing moves {form}: {', '.join(_name(network) for network in rows['network'].unique())}")
    style.footnote(figure, table, "; ".join(notes))
    return figure


def _name(network: str) -> str:
    return NAMES.get(network) or style.MODELS[network]
