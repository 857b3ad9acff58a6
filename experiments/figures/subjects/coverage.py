"""The channels of torchvision's networks that a change of basis scales, and the change of their outputs."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from experiments.errors import UserError
from experiments.figures import page, style
from experiments.figures.runs import FigureRun, reason_of

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

SAMPLINGS = {"in place": "intra", "teleported activations": "inter"}
LARGE = 224
"""Side in pixels of the images for architectures that do not accept smaller ones."""


def measure_coverage(
    run: FigureRun | None, *, names: Sequence[str] | None = None, side: int = 64, range: float = 0.9, seed: int = 0
) -> pd.DataFrame:
    """Teleport each network once in place and once with teleported activations, one network in memory at a time.

    Weights are random (see :func:`~experiments.figures.unchanged_outputs.replace_constants`), images are noise, all in
    single precision and evaluation mode.

    Args:
        run: none.
        names: of torchvision's classification models; ``None`` takes all of them.
        side: of the square images; architectures that do not accept it get images of side ``LARGE``.
        range: of the change of basis, intra-landscape in place and inter-landscape with teleported activations.
        seed: of weights, images and changes of basis.

    Returns:
        rows ``arch``, ``family``, ``parameters``, ``side``, ``rounding`` of the outputs before any teleport, ``form``,
        ``sampling`` and the results of :func:`~experiments.figures.unchanged_outputs.teleport_once`. A network that
        cannot be teleported has one row with the ``reason``.

    Raises:
        UserError: none can be teleported.
    """
    from experiments.models.zoo import architectures

    return of_each(architectures() if names is None else names, lambda name: _rows(name, side, range, seed))


def of_each(names: Sequence[str], measure: Callable[[str], list[dict[str, Any]]]) -> pd.DataFrame:
    """The rows that ``measure`` gives of each network; one that cannot be teleported has one row with the ``reason``.

    Raises:
        UserError: none can be teleported.
    """
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(names, 1):
        log.info("%s (%d of %d)", name, number, len(names))
        try:
            rows += measure(name)
        except Exception as error:  # a failure of one network is logged and must not lose the rows of the others
            if not isinstance(error, UserError):
                log.exception("%s cannot be teleported", name)
            rows.append({"arch": name, "reason": reason_of(error)})
    if all("reason" in row for row in rows):
        reason = rows[0]["reason"] if rows else "figure.measure.names lists none"
        raise UserError(f"no network can be teleported, the first because: {reason}")
    return pd.DataFrame(rows)


def _rows(name: str, side: int, range: float, seed: int) -> list[dict[str, Any]]:
    import torch

    from experiments.data.compat import torchvision
    from experiments.figures.unchanged_outputs import replace_constants, rounding_error, teleport_once

    torch.manual_seed(seed)
    model, side = built(name, side)
    inputs = torch.randn(2 if side < LARGE else 1, 3, side, side)
    replace_constants(model, inputs)
    about = {
        "arch": name,
        "family": torchvision().models.get_model_builder(name).__module__.rpartition(".")[2],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "side": side,
        "rounding": rounding_error(model, inputs),
    }
    return [
        about | {"form": form, "sampling": sampling} | teleport_once(model, inputs, form, sampling, range, seed)
        for form, sampling in SAMPLINGS.items()
    ]


def built(name: str, side: int) -> tuple[nn.Module, int]:
    """The network and the side of the images that it accepts."""
    from experiments.configuration.model_config import TorchvisionConfig
    from experiments.models.registry import build_model
    from experiments.models.zoo import architectures
    from experiments.tasks import Spec

    config = TorchvisionConfig(name="torchvision", arch=name)
    try:
        return build_model(config, Spec("image", (3, side, side), 1000)), side
    except UserError:
        if side == LARGE or name not in architectures():
            raise
        return build_model(config, Spec("image", (3, LARGE, LARGE), 1000)), LARGE


SHARES = {"free": style.PALETTE[0], "shared": style.PALETTE[5], "pinned": "#D9D9D9"}
FORMS = {"in place": ("o", style.PALETTE[1]), "teleported activations": ("D", style.PALETTE[2])}
ROUNDING = ("|", style.GRAY)
LEAST = 1e-8  # smaller differences, including 0, are drawn at this value
LIMIT = 1e-4
ROW = 0.105  # inches


def draw_coverage(table: pd.DataFrame, title: str) -> page.Page:
    """One row per network: shares of its channels in each form, then the relative difference of its outputs.

    Args:
        table: rows of :func:`measure_coverage`.
        title: of the whole picture.
    """
    networks = list(table["arch"].unique())
    figure = page.start(title, 0.4 + ROW * len(networks))
    *shares, difference = figure.subplots(1, len(FORMS) + 1, sharey=True, width_ratios=(1, 1, 1.1))
    for axes, form in zip(shares, FORMS, strict=True):
        _shares(axes, table[table["form"] == form].set_index("arch"), networks)
        axes.set_title(form)
    _differences(difference, table, networks)
    shares[0].set_yticks(range(len(networks)), networks, fontsize=5.5)
    shares[0].set_ylim(len(networks) - 0.5, -0.5)
    for axes in (*shares, difference):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
    handles = [Patch(color=color, label=name) for name, color in SHARES.items()]
    handles += [
        Line2D([], [], linestyle="", marker=marker, color=color, markersize=3, label=name)
        for name, (marker, color) in (FORMS | {"rounding": ROUNDING}).items()
    ]
    page.legend(figure, handles)
    notes = [
        "random weights",
        "hidden channels, the outputs not counted",
        f"rounding: of float32 against float64, before any teleport; dotted: {LIMIT:g}",
    ]
    for form in FORMS:
        without = table.loc[(table["form"] == form) & (table["pinned"] == table["channels"]), "arch"]
        notes += [f"every channel is pinned {form}: {', '.join(without)}"] if len(without) else []
    page.footnote(figure, table, "; ".join(notes))
    return figure


def _shares(axes: Axes, rows: pd.DataFrame, networks: list[str]) -> None:
    """Stacked bars; a network without a row of this form has no bar."""
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
    """One mark per form, and one for the rounding before any teleport; or the reason for a missing result."""
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
