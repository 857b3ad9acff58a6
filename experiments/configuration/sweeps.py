"""How many runs a sweep has, known before Hydra lists them, and how its overrides are written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException

from experiments.errors import UserError

MOST = 100_000
"""Runs of one sweep; Hydra lists all of them before the first one starts."""


def check_sweep(overrides: Iterable[str]) -> None:
    """Refuse a sweep without a run, or of more runs than ``MOST``.

    Raises:
        UserError: it is one; an override that Hydra's grammar does not read is left to Hydra.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:
        return
    runs = 1
    for override in parsed:
        count = values_of(override)
        if count == 0:
            raise UserError(f"'{override.input_line}' has no value, so the sweep has no run; give at least one")
        runs *= count
    if runs > MOST:
        raise UserError(f"the sweep has {runs} runs, more than {MOST}; give fewer values, or several commands")


def values_of(override: Override) -> int:
    """The number of values that an override sweeps over; 1 if it sweeps over none, or Hydra's sweeper chooses them.

    Raises:
        UserError: a range without a step.
    """
    sweep = override.value() if override.is_sweep_override() else None
    if isinstance(sweep, ChoiceSweep):
        return len(sweep.list)
    if not isinstance(sweep, RangeSweep):
        return 1
    if not sweep.step:
        raise UserError(f"'{override.input_line}' has a step of 0; give a range of start, stop and a step to it")
    start, stop = sweep.start or 0, sweep.stop or 0
    return max(0, math.ceil((stop - start) / sweep.step))


COMPUTED = re.compile(r"(?<![\w.])[+-]?\d+\.\d{15,}(e[+-]?\d+)?(?![\w.])")


def written_down(override: str) -> str:
    """An override with its real numbers rounded as a run rounds them: ``lr=0.30000000000000004`` -> ``lr=0.3``."""
    return COMPUTED.sub(lambda number: f"{float(number[0]):.15g}", override)
