"""Teleports tried on the training itself: virtual rollouts, a gate before a move, a method without settings."""
