"""Checks of arguments: each refuses what is outside its range or of another type, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn


def check_positive(**values: float) -> None:
    """Refuse values that are no number above 0."""
    for name, value in values.items():
        check_number(name, value)
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def check_finite(**values: float) -> None:
    """Refuse values that are no number, infinite or NaN."""
    for name, value in values.items():
        check_number(name, value)
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")


def check_whole(**values: int) -> None:
    """Refuse values that are no whole number from 0."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
        if int(value) < 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def check_number(name: str, value: Any) -> None:
    """Refuse a value that is not a real number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_steps(lr: float, steps: int, step: str = "cap", lr_unit: str = "relative") -> None:
    """Refuse a step length, a number of steps, a step rule or a unit of the step length outside its range."""
    check_positive(lr=lr)
    check_finite(lr=lr)
    check_whole(steps=steps)
    check_choice("step", step, ("cap", "fixed"))
    check_choice("lr_unit", lr_unit, ("relative", "absolute"))


def check_limits(cap: float | None, relative_cap: float | None, guard: str, tolerance: float) -> None:
    """Refuse caps on the gradient norm, a guard or a tolerance outside its range."""
    check_positive(tolerance=tolerance)
    caps = {"cap": cap, "relative_cap": relative_cap}
    check_positive(**{name: value for name, value in caps.items() if value is not None})
    check_choice("guard", guard, ("transaction", "none"))


def check_threshold(threshold: float) -> None:
    """Refuse a share of the energy of the inputs that is not in (0, 1]."""
    check_share("threshold", threshold)


def check_share(name: str, value: float) -> None:
    """Refuse a share that is not in (0, 1]."""
    check_number(name, value)
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {value}")


def check_call(model: Any, batches: Any, loss_fn: Any, callback: Any = None, keep_modes: Any = False) -> None:
    """Refuse arguments of a call that are swapped or of another type; ``batches`` are not iterated over."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {_kind(model)}; a call is method(model, batches, loss_fn)"
        )
    check_batches("batches", batches)
    if isinstance(loss_fn, nn.modules.loss._Loss) or not callable(loss_fn):  # a loss of outputs and targets
        raise TypeError(f"loss_fn must be a function of the model and a batch, got {_kind(loss_fn)}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of a teleport.Progress, got {_kind(callback)}")
    if not isinstance(keep_modes, bool):
        raise TypeError(f"keep_modes must be True or False, got {keep_modes!r}")


def check_iterable(name: str, batches: Any) -> None:
    """Refuse what cannot be iterated over, a module, a string and a single tensor."""
    if isinstance(batches, nn.Module | str | dict | torch.Tensor) or not isinstance(batches, Iterable):
        raise TypeError(f"{name} must be a list or another iterable of batches, got {_kind(batches)}")


def check_batches(name: str, batches: Any) -> None:
    """Refuse what :func:`check_iterable` does, and all batches of a data set."""
    check_iterable(name, batches)
    if any(kind.__name__ == "DataLoader" and kind.__module__.startswith("torch.") for kind in type(batches).__mro__):
        raise TypeError(
            f"{name} is a whole DataLoader, and a teleport takes few batches: pass some of them, such as "
            "list(itertools.islice(loader, 8))"
        )


def check_generator(generator: Any) -> None:
    """Refuse what is neither ``None`` nor a ``torch.Generator``."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {_kind(generator)}")


def seeded(seed: Any) -> torch.Generator:
    """A generator on the CPU of this seed; refuses what is no whole number, or one that torch does not take."""
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    if not -(2**63) <= int(seed) < 2**64:
        raise ValueError(f"seed must be from -2**63 to below 2**64, got {seed}")
    return torch.Generator().manual_seed(int(seed))


def _kind(value: Any) -> str:
    """The type of a value, as a user knows it."""
    return "None" if value is None else type(value).__name__
