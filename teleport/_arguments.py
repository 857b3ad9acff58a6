"""Refuse arguments outside their range in one sentence."""

from __future__ import annotations


def check_positive(**values: float | None) -> None:
    """Refuse values that are neither ``None`` nor above 0."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_steps(lr: float, steps: int, step: str = "cap") -> None:
    """Refuse a length, a number or a rule of steps that no method takes."""
    check_positive(lr=lr)
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    check_choice("step", step, ("cap", "fixed"))


def check_limits(cap: float | None, relative_cap: float | None, guard: str, tolerance: float) -> None:
    """Refuse caps on the gradient norm, or a guard of the loss, that no method keeps."""
    check_positive(cap=cap, relative_cap=relative_cap, tolerance=tolerance)
    check_choice("guard", guard, ("transaction", "none"))


def check_threshold(threshold: float) -> None:
    """Refuse a share of the inputs' energy that is none."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
