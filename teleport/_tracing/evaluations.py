"""How an evaluation of a model is run to be watched: which call of the model it is, and in which modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from teleport._tracing.undisturbed import undisturbed

Modes = Mapping[nn.Module, bool]


def modes_of(model: nn.Module) -> dict[nn.Module, bool]:
    """Module -> whether it is in training mode."""
    return {module: module.training for module in model.modules()}


def first_call(model: nn.Module, evaluate: Callable[[], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that ``evaluate`` first calls the model with.

    Raises:
        ValueError: it does not call it.
    """
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = model.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    try:
        evaluate()
    finally:
        hook.remove()
    if not calls:
        raise ValueError('activations="teleport" needs an evaluation that calls the model itself')
    return calls[0]


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
    """Whether there are modules in training mode with parameters of their own that were not reached.

    An auxiliary head, which only training calls, is one; so is what is used without a call, which costs no more than
    another evaluation.
    """
    return any(
        training and module not in reached and any(held is not None for held in module._parameters.values())
        for module, training in modes.items()
    )


def in_modes(model: nn.Module, evaluate: Callable[[], Any], modes: Modes) -> Callable[[], Any]:
    """``evaluate`` with the modules of ``model`` in these modes, and no trace of that left in buffers either."""

    def run() -> Any:
        with undisturbed(model):
            for module, training in modes.items():
                module.training = training
            return evaluate()

    return run
