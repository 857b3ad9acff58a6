"""The change of outputs by changes of basis, for networks of many kinds, in single and in double precision."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from matplotlib.lines import Line2D

from experiments.configuration.model_config import MLPConfig, ModelConfig, NetworkConfig
from experiments.figures import page, style
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import Tensor, nn

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
"""Precision -> its unit roundoff."""

SAMPLES = 8
PAPER = {
    "mlp500": MLPConfig(name="mlp", widths=[500] * 5, init="kaiming"),
    "vgg16": NetworkConfig(name="vgg16", width=1.0, init="kaiming"),
    "resnet18": NetworkConfig(name="resnet18", width=1.0, init="kaiming"),
    "resnet18_tanh": NetworkConfig(name="resnet18", width=1.0, init="kaiming", activation="tanh"),
    "densenet121": NetworkConfig(name="densenet121", width=1.0, init="kaiming"),
}
"""The four networks of the paper at full width, one of them also with tanh."""


class Trial(NamedTuple):
    """A network, and a batch of noise for it."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]


def trials() -> dict[str, Trial]:
    """The networks of :data:`PAPER`, and networks in other styles of code."""
    import torch

    from experiments.models import styles
    from experiments.models.registry import build_model
    from experiments.tasks import Spec

    def images() -> Tensor:
        return torch.randn(SAMPLES, 3, 32, 32)

    def of_the_paper(config: ModelConfig) -> Trial:
        return Trial(lambda: build_model(config, Spec("image", (3, 32, 32), 10)), images)

    return {name: of_the_paper(config) for name, config in PAPER.items()} | {
        "inception": Trial(styles.Inception, images),
        "unet": Trial(styles.UNet, images),
        "functional": Trial(styles.Functional, images),
        "encoder": Trial(styles.Encoder, lambda: torch.randint(50, (SAMPLES, 20))),
    }


def measure_outputs(run: FigureRun | None, *, range: float = 0.9, teleports: int = 3, seed: int = 0) -> pd.DataFrame:
    """Teleport each of :func:`trials` in both precisions and both forms, by intra- and inter-landscape changes.

    Weights are random (see :func:`~experiments.figures.unchanged_outputs.replace_constants`), inputs are noise.
    Networks are in evaluation mode, and every teleport starts from the same weights.

    Args:
        run: none.
        range: of the change of basis.
        teleports: number of them per case; the one with the largest change of the outputs is recorded.
        seed: of weights and inputs; the teleports of a network have this seed and the following ones.

    Returns:
        rows ``network``, ``parameters``, ``precision``, ``form``, ``sampling`` and the results of
        :func:`~experiments.figures.unchanged_outputs.teleport_once`.
    """
    import torch

    from experiments.figures.unchanged_outputs import replace_constants, teleport_once

    rows = []
    for name, trial in trials().items():
        torch.manual_seed(seed)
        model, inputs = trial.build(), trial.inputs()
        replace_constants(model, inputs)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        seeds = itertools.count(seed)
        for precision, form, sampling in itertools.product(PRECISIONS, FORMS, SAMPLINGS):
            dtype = getattr(torch, precision)
            converted = copy.deepcopy(model).to(dtype)
            given = inputs.to(dtype) if inputs.is_floating_point() else inputs
            found = [
                teleport_once(copy.deepcopy(converted), given, form, sampling, range, own)
                for own in itertools.islice(seeds, teleports)
            ]
            labels = {"network": name, "parameters": parameters}
            labels |= {"precision": precision, "form": form, "sampling": sampling}
            rows.append(labels | max(found, key=_difference))
    return pd.DataFrame(rows)


def _difference(found: dict[str, Any]) -> float:
    return float(found["difference"])


def draw_outputs(table: pd.DataFrame, title: str) -> page.Page:
    """One panel per precision: the relative difference of each network's outputs, one mark per sampling and form.

    Args:
        table: rows of :func:`measure_outputs`.
        title: of the whole picture.
    """
    networks = list(table["network"].unique())
    figure = page.start(title, 0.6 + 0.19 * len(networks))
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
    page.legend(figure, handles)
    notes = ["the largest of several teleports of one network", "dotted: the unit roundoff"]
    still = table[table["moved"] == 0]
    for form, rows in still.groupby("form"):
        notes.append(f"nothing moves {form}: {', '.join(_name(network) for network in rows['network'].unique())}")
    page.footnote(figure, table, "; ".join(notes))
    return figure


def _name(network: str) -> str:
    return NAMES.get(network) or style.MODELS[network]
