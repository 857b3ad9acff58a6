"""From a composed configuration to a checked one, before anything is loaded.

The types and the keys are those of ``experiments/configuration/config.py``; here are the values that a type cannot
exclude, and in ``bounds.py`` those of numbers. Methods and models check their own keys when they are built.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.configuration.bounds import check_bounds, rounded, value_of
from experiments.configuration.config import Config
from experiments.configuration.mistakes import of_configuration
from experiments.errors import UserError, one_of

Rule = tuple[str, Callable[[Any], bool], tuple[str, ...]]

# What is right, how to tell, and for which keys. Keys that a kind of data set or model lacks, and None, pass.
RULES: list[Rule] = [
    (
        "auto, cpu, cuda, xpu or mps, the accelerators also with a number as in cuda:1",
        lambda value: re.fullmatch(r"auto|cpu|(cuda|xpu|mps)(:\d+)?", value) is not None,
        ("machine.device",),
    ),
    (
        "keep, reset or transported",
        lambda value: value in ("keep", "reset", "transported"),
        ("teleport.optimizer_state",),
    ),
    ("random or order", lambda value: value in ("random", "order"), ("data.split",)),
    ("keep, drop or spread", lambda value: value in ("keep", "drop", "spread"), ("training.last_batch",)),
    ("float32 or bfloat16", lambda value: value in ("float32", "bfloat16"), ("training.precision",)),
    (
        "true or false",
        lambda value: isinstance(value, bool),
        (
            *("data.flip", "data.as_sequence", "model.bias", "model.norm", "optimizer.nesterov"),
            *("training.compile", "training.channels_last", "machine.progress"),
        ),
    ),
    ("the path of a file", lambda value: value != "" and "\0" not in value, ("model.weights",)),
    ("the path of a folder", lambda value: value != "" and "\0" not in value, ("machine.runs", "data.root")),
]


def resolve(config: DictConfig | Config) -> Config:
    """The configuration with all interpolations resolved, as dataclasses, and checked.

    Raises:
        UserError: a key that no dataclass has, a value that is missing or out of range.
    """
    if isinstance(config, DictConfig):
        try:
            typed = OmegaConf.to_object(config)
        except OmegaConfBaseException as error:
            raise of_configuration(error) from error
        if not isinstance(typed, Config):
            raise TypeError("the configuration is not composed from conf/config.yaml")
        _check_keys(config, typed, "")
        config = typed
    for what, holds, keys in RULES:
        for key in keys:
            value = value_of(config, key)
            if value is not None and not holds(value):
                raise UserError(f"{key} must be {what}, not {value!r}")
    check_bounds(config)
    _round(config)
    return config


def _round(node: Any) -> None:
    """Round the real numbers of a dataclass and those below it."""
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            _round(value)
        else:
            setattr(node, field.name, rounded(value))


def _check_keys(node: DictConfig, typed: Any, path: str) -> None:
    """The keys must be those of the dataclass: nothing reads one that ``+key=value`` adds, ``~key`` leaves a hole."""
    known = [field.name for field in dataclasses.fields(typed)]
    for key in node:
        if key not in known:
            raise one_of(f"key of {path[:-1] or 'a run'}", str(key), known)
    for key in known:
        if key not in node:
            raise UserError(f"'{path}{key}' was deleted, and a run needs it; leave out ~{path}{key}")
        value = getattr(typed, key)
        if dataclasses.is_dataclass(value):
            _check_keys(node[key], value, f"{path}{key}.")
