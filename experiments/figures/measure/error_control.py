"""What a teleport does step by step, for several thresholds, from the same trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd

from experiments.configuration.teleport_config import NullSpaceConfig
from experiments.errors import UserError
from experiments.figures.measure.subject import subject_of
from experiments.figures.runs import FigureRun
from experiments.run.methods import build_teleporter
from teleport import NullSpace


def measure_error_control(
    run: FigureRun, *, thresholds: Sequence[float], steps: int, lr: float | None = None
) -> pd.DataFrame:
    """Loss and gradient norm before each step of a teleport on one batch, and after the last.

    The ascent has the settings of the run's ``teleport``, but takes ``steps`` steps of full length, has no cap and
    nothing is undone, so that each threshold shows what it leads to.

    Args:
        run: a run whose ``teleport`` is a null-space method; it ends with the model that is teleported.
        thresholds: tau, a teleport of the same model each.
        steps: of the ascent.
        lr: eta_tel; ``None`` takes that of the run's ``teleport``.

    Returns:
        rows ``threshold``, ``step`` (0 is before the first), ``loss``, ``gradient_norm``.

    Raises:
        UserError: a run without a null-space teleport, or a setting out of its range.
    """
    subject = subject_of(run)
    settings = subject.config.teleport
    if not isinstance(settings, NullSpaceConfig):
        raise UserError(f"the measure 'error_control' needs a run with teleport=nullspace, not {settings.name}")
    batch = subject.teleport_batch(settings.samples)
    rows = []
    for threshold in thresholds:
        own = {"threshold": threshold, "steps": steps, "lr": settings.lr if lr is None else lr}
        teleporter = build_teleporter(
            dataclasses.replace(settings, **own, step="fixed", guard="none", cap=None, relative_cap=None)
        )
        assert isinstance(teleporter, NullSpace)
        looked_at = dataclasses.replace(teleporter, forward="each")  # with the loss of each step
        subject.load_trained()
        trace = looked_at(subject.model, [batch], subject.loss_fn).batches[0].trace
        rows += [{"threshold": threshold, **dataclasses.asdict(record)} for record in trace]
    return pd.DataFrame(rows)
