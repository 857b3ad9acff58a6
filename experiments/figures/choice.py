"""A name with options, as a figure's YAML says it, looked up among functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.errors import UserError, one_of


def chosen(
    what: str, config: DictConfig, functions: dict[str, Callable[..., Any]]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that ``config.name`` names, and the rest of ``config`` as its keyword arguments.

    Raises:
        UserError: no name, an unknown one, an option that is no keyword-only argument of the function, or one too few.
    """
    options = dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    name = str(options.pop("name", ""))
    if name not in functions:
        raise one_of(what, name, sorted(functions))
    parameters = inspect.signature(functions[name]).parameters.values()
    own = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in [parameter.name for parameter in own]:
            if not own:
                raise UserError(f"the {what} '{name}' has no options, and '{option}' is given")
            raise one_of(f"option of the {what} '{name}'", option, [parameter.name for parameter in own])
    for parameter in own:
        if parameter.default is inspect.Parameter.empty and parameter.name not in options:
            raise UserError(f"the {what} '{name}' needs the option '{parameter.name}'")
    return functions[name], options
