"""A custom model, given by its import path."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import nn

from experiments.configuration.model_config import CustomModel
from experiments.errors import UserError
from experiments.tasks import Spec

FITS = ("image", "sequence", "series", "text", "function")


def build(config: CustomModel, spec: Spec) -> nn.Module:
    """``factory(spec, **options)``; ``config.factory`` is ``package.module:function``.

    Raises:
        UserError: the path is malformed or cannot be imported, the function does not accept the options, or its result
            is not a module, or it ends the program. Other exceptions of the function are not caught.
    """
    function = _load(config.factory)
    try:
        inspect.signature(function).bind(spec, **config.options)
    except (TypeError, ValueError) as error:
        raise UserError(f"model.factory={config.factory} does not take (spec, **model.options): {error}") from error
    try:
        model = function(spec, **config.options)
    except SystemExit as error:
        raise UserError(f"model.factory={config.factory} ended the program with SystemExit({error.code!r})") from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model.factory={config.factory} must return a torch.nn.Module, but returned {type(model).__name__}"
        )
    return model


def _load(path: str) -> Callable[..., Any]:
    module_name, colon, name = path.partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"model.factory takes package.module:function, got '{path}'")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise UserError(f"model.factory={path}: cannot import {module_name} ({error})") from error
    except SystemExit as error:
        raise UserError(
            f"model.factory={path}: {module_name} ended the program with SystemExit({error.code!r}) as it was imported"
        ) from error
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, vars(module), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise UserError(f"model.factory={path}: {module_name} has no '{name}'{hint}")
    function = getattr(module, name)
    if not callable(function):
        raise UserError(f"model.factory={path} must name a function, but {name} is of type {type(function).__name__}")
    return function
