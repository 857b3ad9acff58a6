"""The symmetry groups of a network: which elements act on which axes of its parameters, found and applied."""
