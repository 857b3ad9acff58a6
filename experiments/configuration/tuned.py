"""Settings that ``scripts/tune.py`` found for both sides of a data set, model and optimizer: ``rates=tuned``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.errors import UserError

TABLE = "tuned"
"""The key of a table of rates: data set -> model -> optimizer -> teleport -> key -> value."""
NOT_TUNED = "not tuned"
HOW = "how"
"""The key beside the teleports of a pair: how they were tuned."""


def is_untuned(reason: str) -> bool:
    """Whether a run has no result since its pair of data set, model and optimizer was not tuned (:func:`use_tuned`)."""
    return f"is {NOT_TUNED}" in reason


def use_tuned(config: DictConfig, choices: Mapping[str, Any], overrides: Iterable[str]) -> None:
    """Set the keys of a composed run to what tuning found for its choices, if its table of rates has such settings.

    Args:
        config: the composed run, changed in place.
        choices: the options that Hydra chose.
        overrides: of the command line, whose values stay.

    Raises:
        UserError: the run's data set, model, optimizer and teleport were not tuned.
    """
    rates = config.get("rates")
    if not OmegaConf.is_dict(rates) or TABLE not in rates:
        return
    names = [str(choices[group]) for group in ("data", "model", "optimizer", "teleport")]
    found: Any = OmegaConf.to_container(rates[TABLE])
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        data, model, optimizer, teleport = names
        side = "" if teleport == "none" else f" --teleport {teleport}"
        raise UserError(
            f"data={data} model={model} optimizer={optimizer} teleport={teleport} is {NOT_TUNED}; tune it by python "
            f"scripts/tune.py {data} {model} {optimizer}{side}, or leave out rates={choices['rates']}"
        )
    given = {override.split("=", 1)[0].lstrip("+~") for override in overrides}
    for key, value in found.items():
        if key not in given:
            OmegaConf.update(config, key, value)
