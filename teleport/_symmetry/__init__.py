"""Group actions on pairs of layers (Zhao et al. 2022, 2024) and on whole parameters."""
