"""What a method raises where it cannot teleport a model."""

from __future__ import annotations


class UnsupportedModel(ValueError):
    """A method cannot teleport this model; the message is one sentence that says which layer and why."""
