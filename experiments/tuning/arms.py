"""What each side of a comparison may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.configuration.bounds import value_of
from experiments.configuration.config import Config

if TYPE_CHECKING:
    import optuna

NONE = "none"
"""The teleport of the side without one, whose budget goes into the rate and its warm-up."""
RATE = "optimizer.lr"
RATES = (0.1, 100.0)
"""The range of the learning rate, as factors on the suite's: tuned rates are above those more often than below."""
WARM_UP = "training.lr_warmup_steps"
WARM_UPS = (0.0, 0.1, 0.3, 1.0)
"""The lengths of a warm-up, in epochs."""
STEPS, CAPS = ("teleport.lr", "teleport.length"), ("teleport.cap", "teleport.relative_cap", "teleport.growth")
"""Keys of a teleport that say how far it steps and where it ends; those that its option sets are tuned."""
OF_TELEPORT = (0.1, 10.0)
"""Their range, as factors on the values of the option."""
GROWTHS = (1.1, 10.0)
"""The range of a factor on the gradient norm."""
DIGITS = 3
"""Significant digits of a value that is tried."""


@dataclass(frozen=True)
class Arm:
    """One side: a teleport with the ranges of its keys.

    Attributes:
        teleport: the option.
        ranges: key -> lowest and highest value, searched in the logarithm.
        epoch: steps of one, for the warm-up; 0 without a warm-up.
        start: the suite's own values, which are tried first.
    """

    teleport: str
    ranges: dict[str, tuple[float, float]]
    epoch: int
    start: dict[str, float]

    @property
    def keys(self) -> list[str]:
        """The keys that are tuned."""
        return [*self.ranges, *([WARM_UP] if self.epoch else [])]

    def suggest(self, trial: optuna.Trial) -> None:
        """Let a trial choose its parameters."""
        for key, (low, high) in self.ranges.items():
            trial.suggest_float(key, low, high, log=True)
        if self.epoch:
            trial.suggest_categorical(WARM_UP, WARM_UPS)

    def settings(self, parameters: dict[str, Any]) -> dict[str, float | int]:
        """The keys of a run that has the parameters of a trial."""
        found: dict[str, float | int] = {key: float(f"{parameters[key]:.{DIGITS}g}") for key in self.ranges}
        if self.epoch:
            found[WARM_UP] = round(parameters[WARM_UP] * self.epoch)
        return found


def arm(teleport: str, config: Config, steps_per_epoch: int) -> Arm:
    """The side of an option.

    Args:
        teleport: the option.
        config: of a run with it and the suite's own settings.
        steps_per_epoch: of that run.
    """
    start = {RATE: config.optimizer.lr}
    ranges = {RATE: (RATES[0] * config.optimizer.lr, RATES[1] * config.optimizer.lr)}
    if teleport == NONE:
        return Arm(teleport, ranges, steps_per_epoch, start)
    for key in (*STEPS, *CAPS):
        value = value_of(config, key)
        if isinstance(value, int | float):
            factor = key in ("teleport.relative_cap", "teleport.growth")
            ranges[key] = GROWTHS if factor else (OF_TELEPORT[0] * value, OF_TELEPORT[1] * value)
            start[key] = float(value)
    return Arm(teleport, ranges, 0, start)
