"""Configurations of many runs from Hydra, each choice of options composed once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.configuration.mistakes import of_command_line
from experiments.configuration.options import CONF
from experiments.errors import UserError


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration of ``overrides``, with that of Hydra under ``hydra``.

    Hydra must have been initialised with the configuration directory, as it is inside ``run.py``.

    Raises:
        UserError: the overrides do not compose.
    """
    try:
        return compose("config", list(overrides), return_hydra_config=True)
    except Exception as error:
        mistake = of_command_line(error)
        if mistake is None:
            raise
        raise UserError(f"{' '.join(overrides)}: {mistake}") from error


class Composer:
    """:func:`compose_config` for many lists of overrides that differ mostly in values.

    Hydra reads all files anew for each configuration, 0.4 s of processor time each. Here the options (``model=cnn``)
    are composed once, and plain values (``seed=3``) are set on a copy, as Hydra sets them after its options.
    """

    def __init__(self) -> None:
        self._composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, Any]]] = {}
        self._parser = OverridesParser.create()

    def __call__(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
        """The configuration of ``overrides`` without that of Hydra, and the options that Hydra chose: group -> option.

        Raises:
            UserError: the overrides do not compose.
        """
        try:
            parsed = self._parser.parse_overrides(list(overrides))
        except HydraException:
            return _whole(overrides)  # which says what is wrong with them
        values = [override for override in parsed if _is_plain_value(override)]
        options = tuple(str(override.input_line) for override in parsed if not _is_plain_value(override))
        try:
            if options not in self._composed:
                self._composed[options] = _whole(options)
            config, choices = copy.deepcopy(self._composed[options])
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except (UserError, OmegaConfBaseException):
            return _whole(overrides)
        return config, choices


def _whole(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """What :class:`Composer` returns, by Hydra alone."""
    config = compose_config(overrides)
    choices = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return config, choices


def _is_plain_value(override: Override) -> bool:
    """Whether an override sets one value of a key that exists, and chooses no option."""
    key = override.key_or_group
    changes = override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override()
    is_hydra = key.split(".")[0] == "hydra"  # its job's name and folders are set from it while Hydra composes
    return not (changes or is_hydra or override.package is not None or (CONF / key.partition("@")[0]).is_dir())
