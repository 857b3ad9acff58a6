"""What a change of basis does to a network, measured: plain functions of a model and data (Armenta et al.)."""
