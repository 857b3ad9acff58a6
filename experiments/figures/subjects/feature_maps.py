"""Feature maps of a trained network for one input, before and after a change of basis, on the same scale."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.errors import one_of
from experiments.figures import page
from experiments.figures.runs import FigureRun

if TYPE_CHECKING:
    from torch import Tensor, nn

STATES = {"before": "before", "after": "after"}
ACTIVATIONS = {"relu": "ReLU", "tanh": "tanh"}
LAYERS = {"relu": "stem"}  # torchvision names the activation of the stem so, whatever its function


def measure_feature_maps(
    run: FigureRun, *, range: float, layers: Sequence[str], maps: int, sample: int
) -> pd.DataFrame:
    """The first maps of some layers of the run's final model, before and after one teleport.

    Args:
        run: the run whose final model is measured, in evaluation mode.
        range: of the intra-landscape change of basis; activations take their teleported form where necessary.
        layers: names of modules.
        maps: channels of each, from the first on.
        sample: number of the image in the test split.

    Returns:
        one row per row of a map: ``state`` (``before`` or ``after``), ``layer``, ``channel``, ``row``, and its pixels
        ``x0``, ``x1``, ...; ``output_difference``, the largest change of an output, relative to the largest output.

    Raises:
        UserError: the model has no such layer.
    """
    import torch

    from experiments.figures.rebuilt import rebuild
    from teleport import ChangeOfBasis

    rebuilt = rebuild(run)
    rebuilt.load_trained()
    image = rebuilt.task.test.batch(torch.tensor([sample], device=rebuilt.device))[0]
    teleported = copy.deepcopy(rebuilt.model)
    report = ChangeOfBasis(range=range, activations="teleport", seed=rebuilt.config.seed)(teleported, [(image, None)])
    before, outputs = feature_maps(rebuilt.model, _modules(rebuilt.model, layers), image)
    after, again = feature_maps(report.model, _modules(teleported, layers), image)
    difference = ((again - outputs).abs().max() / outputs.abs().max()).item()
    frames = [
        _rows(of_layer[0, :maps]).assign(state=state, layer=layer)
        for state, found in (("before", before), ("after", after))
        for layer, of_layer in zip(layers, found, strict=True)
    ]
    return pd.concat(frames, ignore_index=True).assign(output_difference=difference)


def feature_maps(model: nn.Module, modules: Sequence[nn.Module], inputs: Any) -> tuple[list[Tensor], Tensor]:
    """The outputs of ``modules`` and of ``model`` for ``inputs``; for a module called several times, of its last call.

    Args:
        model: in the mode in which it is evaluated.
        modules: of ``model``.
        inputs: a batch.
    """
    import torch

    found: dict[int, Tensor] = {}

    def keep(place: int) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
            found[place] = output.detach().clone()

        return hook

    handles = [module.register_forward_hook(keep(place)) for place, module in enumerate(modules)]
    try:
        with torch.no_grad():
            outputs = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [found[place] for place in range(len(modules))], outputs


def _modules(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    known = dict(model.named_modules())
    for name in names:
        if name not in known:
            raise one_of("layer of the model", name, [other for other in known if other])
    return [known[name] for name in names]


def _rows(maps: Tensor) -> pd.DataFrame:
    """[channels, height, width] -> one row per row of a map, with its channel and number."""
    channels, height, width = maps.shape
    places = pd.DataFrame({"channel": channel, "row": row} for channel in range(channels) for row in range(height))
    pixels = maps.cpu().reshape(-1, width).numpy()
    return pd.concat([places, pd.DataFrame(pixels, columns=[f"x{place}" for place in range(width)])], axis="columns")


def draw_feature_maps(table: pd.DataFrame, title: str) -> page.Page:
    """For each activation and layer two rows of maps, before and after, on one grey scale.

    Args:
        table: rows of :func:`measure_feature_maps`, of runs that differ in their activation.
        title: of the whole picture.
    """
    blocks = list(table.groupby(["model.activation", "layer"], sort=False, dropna=False))
    maps = int(table["channel"].max() + 1) if "channel" in table and table["channel"].notna().any() else 1
    figure = page.start(title, 0.3 + 1.75 * len(blocks))
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
        "before and after have the same shades; "
        f"outputs differ by {worst:.0e} of the largest"
    )
    page.footnote(figure, table, what)
    return figure


def _maps(rows: pd.DataFrame) -> np.ndarray:
    """[channels, height, width] of the rows of one layer in one state."""
    pixels = rows[[column for column in rows if column[0] == "x" and column[1:].isdigit()]].dropna(axis="columns")
    return pixels.to_numpy().reshape(rows["channel"].nunique(), -1, pixels.shape[1])


def _limits(stacks: dict[str, np.ndarray]) -> tuple[float, float]:
    return min(stack.min() for stack in stacks.values()), max(stack.max() for stack in stacks.values())
