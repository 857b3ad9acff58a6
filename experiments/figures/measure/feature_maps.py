"""What layers of a trained network say of one input, before and after a change of basis."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.analyses.feature_maps import feature_maps
from experiments.errors import one_of
from experiments.figures.measure.subject import subject_of
from experiments.figures.runs import FigureRun
from teleport import ChangeOfBasis


def measure_feature_maps(
    run: FigureRun, *, range: float, layers: Sequence[str], maps: int, sample: int
) -> pd.DataFrame:
    """The first maps of some layers of the model that the run ended with, before and after one teleport.

    Args:
        run: whose model is looked at, in evaluation mode.
        range: of the intra-landscape change of basis; activations take their teleported form where they need it.
        layers: names of modules.
        maps: channels of each, from the first on.
        sample: number of the image in the test split.

    Returns:
        a row a row of a map: ``state`` (``before`` or ``after``), ``layer``, ``channel``, ``row``, and its pixels
        ``x0``, ``x1``, ...; ``output_difference``, the largest of an output, relative to the largest output.

    Raises:
        UserError: a layer that the model does not have.
    """
    subject = subject_of(run)
    subject.load_trained()
    image = subject.task.test.batch(torch.tensor([sample], device=subject.device))[0]
    teleported = copy.deepcopy(subject.model)
    report = ChangeOfBasis(range=range, activations="teleport", seed=subject.config.seed)(teleported, [(image, None)])
    before, outputs = feature_maps(subject.model, _modules(subject.model, layers), image)
    after, again = feature_maps(report.model, _modules(teleported, layers), image)
    difference = ((again - outputs).abs().max() / outputs.abs().max()).item()
    frames = [
        _rows(image_of_all[0, :maps]).assign(state=state, layer=layer)
        for state, found in (("before", before), ("after", after))
        for layer, image_of_all in zip(layers, found, strict=True)
    ]
    return pd.concat(frames, ignore_index=True).assign(output_difference=difference)


def _modules(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    known = dict(model.named_modules())
    for name in names:
        if name not in known:
            raise one_of("layer of the model", name, [other for other in known if other])
    return [known[name] for name in names]


def _rows(maps: Tensor) -> pd.DataFrame:
    """[channels, height, width] -> a row a row, with its channel and number."""
    channels, height, width = maps.shape
    places = pd.DataFrame({"channel": channel, "row": row} for channel in range(channels) for row in range(height))
    pixels = maps.cpu().reshape(-1, width).numpy()
    return pd.concat([places, pd.DataFrame(pixels, columns=[f"x{place}" for place in range(width)])], axis="columns")
