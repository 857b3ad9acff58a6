"""Refuse arguments outside their range in one sentence."""

from __future__ import annotations


class UnsupportedModel(ValueError):
    """A method cannot teleport this model; the message is one sentence that says which layer and why."""


def check_positive(**values: float | None) -> None:
    """Refuse values that are neither ``None`` nor above 0."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
