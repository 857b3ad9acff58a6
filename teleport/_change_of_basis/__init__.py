"""A random change of basis of the neurons (Armenta et al. 2023)."""
