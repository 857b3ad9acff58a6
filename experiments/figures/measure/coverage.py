"""Which channels of torchvision's networks a change of basis reaches, and what it leaves of their outputs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn

from experiments.configuration.model_config import TorchvisionConfig
from experiments.data.compat import torchvision
from experiments.errors import UserError
from experiments.figures.measure.kept import rounding, settle, teleport_once
from experiments.figures.runs import FigureRun, reason_of
from experiments.models.registry import build_model
from experiments.models.zoo import architectures
from experiments.tasks import Spec

log = logging.getLogger(__name__)

SAMPLINGS = {"in place": "intra", "teleported activations": "inter"}
LARGE = 224
"""Pixels of the images that architectures get which take no smaller ones."""


def measure_coverage(
    run: FigureRun | None, *, names: Sequence[str] | None = None, side: int = 64, range: float = 0.9, seed: int = 0
) -> pd.DataFrame:
    """Teleport each network once in place and once with teleported activations, one network in memory at a time.

    Weights are random (see :func:`settle`), images are noise, all in single precision and evaluation mode.

    Args:
        run: none.
        names: of torchvision's classification models; ``None`` takes all of them.
        side: of the square images; architectures that do not take it get those of ``LARGE``.
        range: of the change of basis, intra-landscape in place and inter-landscape with teleported activations.
        seed: of weights, images and changes of basis.

    Returns:
        rows ``arch``, ``family``, ``parameters``, ``side``, ``rounding`` of the outputs before any teleport, ``form``,
        ``sampling`` and what :func:`teleport_once` says. A network that cannot be teleported has a row with the
        ``reason``.

    Raises:
        UserError: none can be teleported.
    """
    rows: list[dict[str, Any]] = []
    names = architectures() if names is None else names
    for number, name in enumerate(names, 1):
        log.info("%s (%d of %d)", name, number, len(names))
        try:
            rows += _rows(name, side, range, seed)
        except Exception as error:  # of one network, told with its traceback; it must not cost the others their rows
            if not isinstance(error, UserError):
                log.exception("%s cannot be teleported", name)
            rows.append({"arch": name, "reason": reason_of(error)})
    if all("reason" in row for row in rows):
        reason = rows[0]["reason"] if rows else "figure.measure.names lists none"
        raise UserError(f"no network can be teleported, the first because: {reason}")
    return pd.DataFrame(rows)


def _rows(name: str, side: int, range: float, seed: int) -> list[dict[str, Any]]:
    torch.manual_seed(seed)
    model, side = _build(name, side)
    inputs = torch.randn(2 if side < LARGE else 1, 3, side, side)
    settle(model, inputs)
    about = {
        "arch": name,
        "family": torchvision().models.get_model_builder(name).__module__.rpartition(".")[2],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "side": side,
        "rounding": rounding(model, inputs),
    }
    return [
        about | {"form": form, "sampling": sampling} | teleport_once(model, inputs, form, sampling, range, seed)
        for form, sampling in SAMPLINGS.items()
    ]


def _build(name: str, side: int) -> tuple[nn.Module, int]:
    """The network and the side of the images that it takes."""
    config = TorchvisionConfig(name="torchvision", arch=name)
    try:
        return build_model(config, Spec("image", (3, side, side), 1000)), side
    except UserError:
        if side == LARGE or name not in architectures():
            raise
        return build_model(config, Spec("image", (3, LARGE, LARGE), 1000)), LARGE
