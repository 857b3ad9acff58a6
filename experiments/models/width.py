"""Narrow variants of published networks."""

from __future__ import annotations


def narrowed(channels: int, width: float) -> int:
    """``channels`` times ``width``, rounded, and at least 1."""
    return max(1, round(channels * width))
