"""What is tuned and how, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.errors import UserError, one_of
from experiments.tuning.arms import NONE

SAMPLERS = ("tpe", "random")
FIRST_SEED = 100
"""Seeds from here on are for tuning; those below are for what is reported."""
SECONDS, END = "seconds", "end"
ALLOWED = ("machine.", "data.root", "scale")
"""Overrides of a tuning; others would be of another model or data set than the winners are for."""


@dataclass(frozen=True)
class Tuning:
    """What is tuned, and how.

    Attributes:
        data, model, optimizer: the pair, as options.
        teleports: the sides besides that without teleports.
        trials: of each side.
        seeds: of the runs of a trial.
        sampler: ``tpe`` or ``random``.
        at: where losses count: ``seconds``, those that a run's own steps take without its teleports, or ``end``.
        overrides: of the runs, ``machine.*``, ``data.root`` and ``scale``.
        into: the table of rates that winners go into.
    """

    data: str
    model: str
    optimizer: str
    into: Path
    teleports: Sequence[str] = ("nullspace",)
    trials: int = 20
    seeds: Sequence[int] = (100, 101)
    sampler: str = SAMPLERS[0]
    at: str = SECONDS
    overrides: Sequence[str] = field(default_factory=list)

    @property
    def pair(self) -> dict[str, str]:
        """The choices that the sides share."""
        return {"data": self.data, "model": self.model, "optimizer": self.optimizer}


def check(tuning: Tuning) -> None:
    """Raise a ``UserError`` for a mistake."""
    for seed in tuning.seeds:
        if seed < FIRST_SEED:
            raise UserError(
                f"the seed {seed} is one of those that results are reported for; tune with seeds from {FIRST_SEED} on"
            )
    if len(set(tuning.seeds)) < len(tuning.seeds):
        raise UserError("a seed is given twice; give different ones")
    if tuning.trials < 1:
        raise UserError(f"each side needs at least one trial, not {tuning.trials}")
    if NONE in tuning.teleports or len(set(tuning.teleports)) != len(tuning.teleports) or not tuning.teleports:
        raise UserError("give the teleports to tune besides none, each once")
    if tuning.sampler not in SAMPLERS:
        raise one_of("sampler", tuning.sampler, list(SAMPLERS))
    if tuning.at not in (SECONDS, END):
        raise one_of("place of the loss", tuning.at, [SECONDS, END])
    for override in tuning.overrides:
        if not override.lstrip("+~").startswith(ALLOWED):
            raise UserError(f"'{override}' is not for tuning, which takes machine.*, data.root and scale alone")
