"""From a composed configuration to a checked one, before anything is loaded.

The types and the keys are those of ``experiments/configuration/config.py``; here are the values that a type cannot
exclude. Methods and models check their own keys when they are built.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.configuration.config import Config
from experiments.configuration.mistakes import of_configuration
from experiments.errors import UserError, one_of

Rule = tuple[str, Callable[[Any], bool], tuple[str, ...]]

# What is right, how to tell, and for which keys. Keys that a kind of data set or model lacks, and None, pass.
RULES: list[Rule] = [
    (
        "a whole number of at least 1",
        lambda value: value >= 1,
        (
            *("training.max_steps", "training.batch_size", "training.eval_every"),
            *("training.eval_samples", "data.train_samples", "data.test_samples", "data.batch_size", "data.eval_every"),
            *("data.image_size", "data.shape", "data.classes", "data.window", "data.horizon"),
            *("data.length", "data.vocabulary", "model.teleport_samples", "teleport.batches", "teleport.samples"),
            *("machine.threads", "machine.jobs"),
        ),
    ),
    (
        "0 or more",
        lambda value: 0 <= value < math.inf,
        (
            *("data.crop", "data.data_seed", "model.warmup_steps", "machine.checkpoint_seconds"),
            *("teleport.epochs", "teleport.at_steps", "teleport.warmup_steps", "teleport.constraint_batches"),
            *("training.epochs", "training.plateau.patience"),  # a run of no epochs is the initial model, evaluated
        ),
    ),
    ("between 0 and 1", lambda value: 0 < value < 1, ("training.plateau.factor", "data.train_share")),
    ("a whole number from 0 to 4294967295", lambda value: 0 <= value < 2**32, ("seed",)),
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
    ("float32 or bfloat16", lambda value: value in ("float32", "bfloat16"), ("training.precision",)),
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
        _refuse_added_keys(config, typed, "")
        config = typed
    for what, holds, keys in RULES:
        for key in keys:
            value = _value(config, key)
            entries = value if isinstance(value, list) else [value]
            if not all(entry is None or holds(entry) for entry in entries):
                raise UserError(f"{key} must be {what}, not {value!r}")
    return config


def _value(config: Config, key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        node = getattr(node, name, None)
    return node


def _refuse_added_keys(node: DictConfig, typed: Any, path: str) -> None:
    """A ``+key=value`` adds keys that nothing reads: if a dataclass lists the keys, that is a mistake."""
    known = [field.name for field in dataclasses.fields(typed)]
    for key in node:
        if key not in known:
            raise one_of(f"key of {path[:-1] or 'a run'}", str(key), known)
        value = getattr(typed, key)
        if dataclasses.is_dataclass(value):
            _refuse_added_keys(node[key], value, f"{path}{key}.")
