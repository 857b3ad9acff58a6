"""Moves in the null space of the layer inputs (Wu et al. 2025)."""
