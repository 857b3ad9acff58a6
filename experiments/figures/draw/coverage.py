"""Coverage: the share of each network's channels that a change of basis reaches, and what it leaves of the outputs."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from experiments.figures import style

SHARES = {"free": style.PALETTE[0], "shared": style.PALETTE[5], "pinned": "#D9D9D9"}
FORMS = {"in place": ("o", style.PALETTE[1]), "teleported activations": ("D", style.PALETTE[2])}
ROUNDING = ("|", style.GRAY)
LEAST = 1e-8  # a difference that is drawn; smaller ones, and none at all, lie at it
LIMIT = 1e-4
ROW = 0.105  # inches


def draw_coverage(table: pd.DataFrame, title: str) -> Figure:
    """A row a network: shares of its channels in each form, then the relative difference of its outputs.

    Args:
        table: rows of ``measure/coverage.py``.
        title: of the whole picture.
    """
    networks = list(table["arch"].unique())
    figure = style.page(title, 1.2 + ROW * len(networks))
    *shares, difference = figure.subplots(1, len(FORMS) + 1, sharey=True, width_ratios=(1, 1, 1.1))
    for axes, form in zip(shares, FORMS, strict=True):
        _shares(axes, table[table["form"] == form].set_index("arch"), networks)
        axes.set_title(form)
    _differences(difference, table, networks)
    shares[0].set_yticks(range(len(networks)), networks, fontsize=4.8)
    shares[0].set_ylim(len(networks) - 0.5, -0.5)
    for axes in (*shares, difference):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
    handles = [Patch(color=color, label=name) for name, color in SHARES.items()]
    handles += [
        Line2D([], [], linestyle="", marker=marker, color=color, markersize=3, label=name)
        for name, (marker, color) in (FORMS | {"rounding": ROUNDING}).items()
    ]
    style.legend(figure, handles)
    notes = [
        "random weights",
        "hidden channels, the outputs not counted",
        f"rounding: of float32 against float64, before any teleport; dotted: {LIMIT:g}",
    ]
    for form in FORMS:
        without = table.loc[(table["form"] == form) & (table["pinned"] == table["channels"]), "arch"]
        notes += [f"every channel is pinned {form}: {', '.join(without)}"] if len(without) else []
    style.footnote(figure, table, "; ".join(notes))
    return figure


def _shares(axes: Axes, rows: pd.DataFrame, networks: list[str]) -> None:
    """Stacked bars; a network without a row of this form has none."""
    for place, network in enumerate(networks):
        left = 0.0
        if network in rows.index:
            for name, color in SHARES.items():
                share = rows.loc[network, name] / rows.loc[network, "channels"]
                axes.barh(place, share, left=left, height=0.8, color=color, linewidth=0)
                left += share
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of the channels")


def _differences(axes: Axes, table: pd.DataFrame, networks: list[str]) -> None:
    """A mark a form, and one for the rounding before any teleport; why a network has no row stands in its place."""
    places = {network: place for place, network in enumerate(networks)}
    rounded = table[table["reason"] == ""].drop_duplicates("arch")
    marker, color = ROUNDING
    y = [places[network] for network in rounded["arch"]]
    axes.plot(rounded["rounding"].clip(lower=LEAST), y, linestyle="", marker=marker, color=color, markersize=4)
    for form, (marker, color) in FORMS.items():
        rows = table[(table["form"] == form) & (table["reason"] == "")]
        y = [places[network] for network in rows["arch"]]
        axes.plot(rows["difference"].clip(lower=LEAST), y, linestyle="", marker=marker, color=color, markersize=2.2)
    for row in table[table["reason"] != ""].itertuples():
        axes.text(LEAST, places[row.arch], textwrap.shorten(row.reason, 90), va="center", fontsize=4)
    axes.axvline(LIMIT, color=style.GRAY, linestyle=":", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(LEAST / 1.5, max(10 * LIMIT, 1.5 * table["difference"].max()))
    axes.set_xlabel("max |difference| / max |output|")
