"""Evaluations of a model for tracing: the arguments of its call, the modules that run, their modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from teleport._tracing.caller_autocast import CallerAutocast
from teleport._tracing.undisturbed import forget_casts, undisturbed

Modes = Mapping[nn.Module, bool]


def modes_of(model: nn.Module) -> dict[nn.Module, bool]:
    """Module -> whether it is in training mode."""
    return {module: module.training for module in model.modules()}


def first_call(model: nn.Module, evaluate: Callable[[], Any], form: nn.Module) -> Callable[[], Any]:
    """The first call of the model in ``evaluate``, to be made again: its arguments, and the autocast around it.

    Args:
        model: what ``evaluate`` calls.
        evaluate: one evaluation.
        form: what is called again, the model or its teleported form.

    Raises:
        ValueError: ``evaluate`` does not call the model.
    """
    calls: list[tuple[tuple[Any, ...], dict[str, Any], CallerAutocast]] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs, CallerAutocast())), with_kwargs=True
    )
    try:
        evaluate()
    finally:
        hook.remove()
    if not calls:
        raise ValueError('activations="teleport" needs an evaluation that calls the model itself')
    args, kwargs, autocast = calls[0]

    def call() -> Any:
        forget_casts()  # a cast that is kept hides that its parameter is read
        return autocast.run(lambda: form(*args, **kwargs))

    return call


@contextmanager
def reached_modules() -> Iterator[set[nn.Module]]:
    """Collects the modules that are called."""
    reached: set[nn.Module] = set()
    hook = register_module_forward_pre_hook(lambda module, _: reached.add(module))
    try:
        yield reached
    finally:
        hook.remove()


def leaves_out(reached: set[nn.Module], modes: Modes) -> bool:
    """Whether a module in training mode that has parameters of its own was not reached.

    An auxiliary head that is only called in training is such a module. So is one whose parameters are used without a
    call of it; then the answer costs one more evaluation, and nothing else.
    """
    return any(
        training and module not in reached and any(parameter is not None for parameter in module._parameters.values())
        for module, training in modes.items()
    )


def in_modes(model: nn.Module, evaluate: Callable[[], Any], modes: Modes) -> Callable[[], Any]:
    """``evaluate`` with the modules of ``model`` in these modes; modes and buffers are restored after each call."""

    def run() -> Any:
        return undisturbed(model, lambda state: in_them(), within=True)

    def in_them() -> Any:
        for module, training in modes.items():
            module.training = training
        return evaluate()

    return run
