"""Bounds of every number of a configuration.

Numbers that enter float32 arithmetic are at most 1e30 in size, as products with gradients have to be finite, too. A
count fits into 32 bits. ``tests/experiments/configuration/test_bounds.py`` checks that no number of a schema is left
out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from experiments.configuration.config import Config
from experiments.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """An interval of whole or real numbers.

    ``above`` and ``below`` leave out the ends ``low`` and ``high``. A list has ``length`` entries, or any number.
    """

    low: float
    high: float
    whole: bool = False
    above: bool = False
    below: bool = False
    length: int | None = None

    def hold(self, value: Any) -> bool:
        """Whether a value lies between the bounds, all of its entries if it is a list; ``None`` does."""
        if isinstance(value, list):
            numbers = all(isinstance(entry, int | float) for entry in value)  # OmegaConf lets lists of lists through
            return numbers and self.length in (None, len(value)) and all(map(self.hold, value))
        if value is None:
            return True
        over = self.low < value if self.above else self.low <= value
        under = value < self.high if self.below else value <= self.high
        return over and under  # nan is neither

    def __str__(self) -> str:
        """What is right, in words."""
        kind, low, high = "a whole number" if self.whole else "a number", self.low, self.high
        if self.length is not None:
            kind = f"{self.length} numbers"
        if self.above and self.below:
            return f"{kind} between {low:g} and {high:g}"
        start = f"above {low:g} and" if self.above else f"from {low:g} to"
        if self.whole:
            return f"{kind} from {low} to {high}"
        if self.below:
            return f"{kind} {start} below {high:g}"
        return f"{kind} {start} at most {high:g}" if self.above else f"{kind} {start} {high:g}"


LARGE = 1e30
POSITIVE = Bounds(0, LARGE, above=True)
NOT_NEGATIVE = Bounds(0, LARGE)
FINITE = Bounds(-LARGE, LARGE)
SHARE = Bounds(0, 1, above=True, below=True)
DECAY = Bounds(0, 1, below=True)
COUNT = Bounds(1, 2**31 - 1, whole=True)
COUNT_OR_0 = Bounds(0, 2**31 - 1, whole=True)
SEED = Bounds(0, 2**32 - 1, whole=True)
PROCESSORS = Bounds(1, 1024, whole=True)

BOUNDS: dict[str, Bounds] = {
    "seed": SEED,
    "data.train_samples": COUNT,
    "data.test_samples": COUNT,
    "data.batch_size": COUNT,
    "data.eval_every": COUNT,
    "data.image_size": COUNT,
    "data.crop": COUNT_OR_0,
    "data.shape": Bounds(1, 2**31 - 1, whole=True),
    "data.classes": Bounds(2, 2**31 - 1, whole=True),
    "data.data_seed": SEED,
    "data.start": FINITE,
    "data.window": COUNT,
    "data.horizon": COUNT,
    "data.train_share": SHARE,
    "data.length": COUNT,
    "data.vocabulary": Bounds(2, 2**31 - 1, whole=True),
    "model.init_gain": POSITIVE,
    "model.warmup_steps": COUNT_OR_0,
    "model.teleport_samples": COUNT,
    "model.widths": COUNT,
    "model.channels": COUNT,
    "model.stem_stride": COUNT,
    "model.width": Bounds(0, 1e6, above=True),
    "model.heads": COUNT,
    "model.head_dim": COUNT,
    "model.layers": Bounds(1, 1000, whole=True),
    "model.mlp_ratio": Bounds(0, 1e6, above=True),
    "model.dropout": DECAY,
    "model.start": FINITE,
    "optimizer.lr": POSITIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": DECAY,
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.betas": Bounds(0, 1, below=True, length=2),
    "teleport.epochs": COUNT_OR_0,
    "teleport.at_steps": COUNT_OR_0,
    "teleport.warmup_steps": COUNT_OR_0,
    "teleport.batches": COUNT,
    "teleport.samples": COUNT,
    "teleport.constraint_batches": COUNT_OR_0,
    "teleport.held_out_batches": COUNT_OR_0,
    "teleport.lr": POSITIVE,
    "teleport.steps": COUNT_OR_0,
    "teleport.threshold": Bounds(0, 1, above=True),
    "teleport.cap": POSITIVE,
    "teleport.relative_cap": POSITIVE,
    "teleport.tolerance": POSITIVE,
    "teleport.share": SHARE,
    "teleport.growth": POSITIVE,
    "teleport.horizon": COUNT,
    "teleport.objective_scale": POSITIVE,
    "teleport.length": POSITIVE,
    "teleport.bound": POSITIVE,
    "teleport.range": POSITIVE,
    "teleport.p": POSITIVE,
    "teleport.center": FINITE,
    "teleport.seed": SEED,
    "training.epochs": COUNT_OR_0,  # a run of no epochs is the initial model, evaluated
    "training.max_steps": COUNT,
    "training.batch_size": COUNT,
    "training.eval_every": COUNT,
    "training.eval_samples": COUNT,
    "training.lr_warmup_steps": COUNT_OR_0,
    "training.plateau.factor": SHARE,
    "training.plateau.patience": COUNT_OR_0,
    "machine.threads": PROCESSORS,
    "machine.jobs": PROCESSORS,
    "machine.checkpoint_seconds": NOT_NEGATIVE,
}
"""Key -> its bounds, for the keys of all kinds of data sets, models, optimizers and methods."""


def check_bounds(config: Config) -> None:
    """Refuse a number outside of its bounds.

    Raises:
        UserError: there is one.
    """
    for key, bounds in BOUNDS.items():
        value = value_of(config, key)
        if not bounds.hold(value):
            raise UserError(f"{key} must be {bounds}, not {value}")


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted key; ``None`` if the kind of data set, model or method lacks it."""
    node: Any = config
    for name in key.split("."):
        node = getattr(node, name, None)
    return node


def rounded(value: Any) -> Any:
    """``value`` with its real numbers rounded to 15 significant digits, in lists and dictionaries, too.

    A number that is written down stays as it is. One that is computed, as ``range(0.1,0.5,0.1)`` of a sweep does, is
    then the same as if it were written down: 0.30000000000000004 is 0.3.
    """
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.15g}")
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return value
