"""What changes of basis leave of the outputs of networks of many kinds, in single and in double precision."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.configuration.model_config import MLPConfig, ModelConfig, NetworkConfig
from experiments.figures.measure.kept import FORMS, settle, teleport_once
from experiments.figures.runs import FigureRun
from experiments.models import styles
from experiments.models.registry import build_model
from experiments.tasks import Spec

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
SAMPLINGS = ("intra", "inter")
SAMPLES = 8


def _images() -> Tensor:
    return torch.randn(SAMPLES, 3, 32, 32)


class Trial(NamedTuple):
    """A network, and a batch of noise for it."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor] = _images


def _of_the_paper(config: ModelConfig) -> Trial:
    return Trial(lambda: build_model(config, Spec("image", (3, 32, 32), 10)))


TRIALS = {
    "mlp500": _of_the_paper(MLPConfig(name="mlp", widths=[500] * 5, init="kaiming")),
    "vgg16": _of_the_paper(NetworkConfig(name="vgg16", width=1.0, init="kaiming")),
    "resnet18": _of_the_paper(NetworkConfig(name="resnet18", width=1.0, init="kaiming")),
    "resnet18_tanh": _of_the_paper(NetworkConfig(name="resnet18", width=1.0, init="kaiming", activation="tanh")),
    "densenet121": _of_the_paper(NetworkConfig(name="densenet121", width=1.0, init="kaiming")),
    "inception": Trial(styles.Inception),
    "unet": Trial(styles.UNet),
    "functional": Trial(styles.Functional),
    "encoder": Trial(styles.Encoder, lambda: torch.randint(50, (SAMPLES, 20))),
}
"""The four of the paper at full width, one of them also with tanh, and networks in other styles of writing."""


def measure_outputs(run: FigureRun | None, *, range: float = 0.9, teleports: int = 3, seed: int = 0) -> pd.DataFrame:
    """Teleport each of ``TRIALS`` in both precisions and both forms, by intra- and inter-landscape changes of basis.

    Weights are random (see :func:`settle`), inputs noise, networks in evaluation mode; every teleport starts from the
    same weights.

    Args:
        run: none.
        range: of the change of basis.
        teleports: that are tried; the one that changed the outputs most is told.
        seed: of weights and inputs; the teleports of a network have this seed and the next ones.

    Returns:
        rows ``network``, ``parameters``, ``precision``, ``form``, ``sampling`` and what :func:`teleport_once` says.
    """
    rows = []
    for name, trial in TRIALS.items():
        torch.manual_seed(seed)
        model, inputs = trial.build(), trial.inputs()
        settle(model, inputs)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        seeds = itertools.count(seed)
        for (precision, dtype), form, sampling in itertools.product(PRECISIONS.items(), FORMS, SAMPLINGS):
            precise = copy.deepcopy(model).to(dtype)
            given = inputs.to(dtype) if inputs.is_floating_point() else inputs
            found = [
                teleport_once(copy.deepcopy(precise), given, form, sampling, range, own)
                for own in itertools.islice(seeds, teleports)
            ]
            labels = {"network": name, "parameters": parameters}
            labels |= {"precision": precision, "form": form, "sampling": sampling}
            rows.append(labels | max(found, key=_difference))
    return pd.DataFrame(rows)


def _difference(found: dict[str, Any]) -> float:
    return float(found["difference"])
