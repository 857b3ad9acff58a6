"""The function and its options that a figure's YAML names under ``measure`` or ``draw``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.errors import UserError, one_of


def chosen(
    what: str, config: DictConfig, functions: Mapping[str, Callable[..., Any]]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function named by ``config.name``, and the other keys of ``config`` as its keyword arguments.

    Args:
        what: the kind of function, for messages.
        config: ``name`` and options.
        functions: the known functions by name.

    Raises:
        UserError: the name is missing or unknown, an option is not a keyword-only argument of the function, or a
            required option is missing.
    """
    options = dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    name = str(options.pop("name", ""))
    if name not in functions:
        raise one_of(what, name, sorted(functions))
    function = functions[name]
    parameters = inspect.signature(function).parameters.values()
    own = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in [parameter.name for parameter in own]:
            if not own:
                raise UserError(f"the {what} '{name}' takes no options, but '{option}' is given")
            raise one_of(f"option of the {what} '{name}'", option, [parameter.name for parameter in own])
    for parameter in own:
        if parameter.default is inspect.Parameter.empty and parameter.name not in options:
            raise UserError(f"the {what} '{name}' needs the option '{parameter.name}'")
    return function, options
