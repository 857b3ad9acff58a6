"""Tasks by the name of their data set."""

from __future__ import annotations

from dataclasses import fields

import torch

from experiments.configuration.data_config import (
    DataConfig,
    DigitsData,
    FunctionData,
    ImageData,
    RandomData,
    SeriesData,
    TextData,
)
from experiments.data.embedded import digits_task, random_task
from experiments.data.functions import function_task
from experiments.data.images import image_task
from experiments.data.published import IMAGES, KNOWN, OFFLINE, SEQUENCES, SERIES, TEXTS
from experiments.data.series import series_task
from experiments.data.text import text_task
from experiments.errors import UserError, one_of
from experiments.functions import FUNCTIONS
from experiments.tasks import Task

__all__ = ["KNOWN", "OFFLINE", "build_task"]

FACTORIES = {
    **dict.fromkeys([*IMAGES, *SEQUENCES], (ImageData, image_task)),
    **dict.fromkeys(SERIES, (SeriesData, series_task)),
    **dict.fromkeys(TEXTS, (TextData, text_task)),
    **dict.fromkeys(FUNCTIONS, (FunctionData, function_task)),
    "digits": (DigitsData, digits_task),
    "random": (RandomData, random_task),
}
"""Data set -> the dataclass of its keys, and the function that builds its task."""


def build_task(config: DataConfig, device: torch.device) -> Task:
    """The task of ``config``, with its data on ``device``.

    Raises:
        UserError: the name is unknown, a key does not fit, or the data cannot be downloaded or read.
    """
    if config.name not in FACTORIES:
        raise one_of("data set", config.name, KNOWN)
    schema, factory = FACTORIES[config.name]
    missing = [field.name for field in fields(schema) if not hasattr(config, field.name)]
    if missing:
        raise UserError(
            f"data.name is '{config.name}', but the other keys are those of another kind of data set (there is no "
            f"{missing[0]}); choose it by data={config.name}"
        )
    return factory(config, device)
