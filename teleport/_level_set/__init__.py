"""Linearised level-set teleportation (Mishkin et al. 2024)."""
