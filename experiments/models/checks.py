"""Checks shared by several models."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.errors import UserError
from experiments.tasks import Spec


def require_positive(key: str, values: Sequence[float]) -> None:
    """Raise a ``UserError`` unless all values of a key are above 0."""
    if any(value <= 0 for value in values):
        raise UserError(f"{key} takes numbers above 0, got {', '.join(map(str, values))}")


def require_some(key: str, values: Sequence[int]) -> None:
    """Raise a ``UserError`` unless a key lists at least one value, each above 0."""
    if not values:
        raise UserError(f"{key} must list at least one number above 0, got an empty list")
    require_positive(key, values)


def require_image(model: str, spec: Spec, least: int) -> None:
    """Raise a ``UserError`` unless the images of the data are at least ``least`` pixels high and wide."""
    _, height, width = spec.input_shape
    if min(height, width) < least:
        raise UserError(
            f"model '{model}' takes images of at least {least}x{least}, but the data's are {height}x{width}; "
            f"data.image_size={least} resizes them"
        )
