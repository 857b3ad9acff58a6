"""Evaluations in segments, of which a second derivative holds one at a time."""
