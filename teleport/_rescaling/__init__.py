"""Positive factors on hidden channels, with the gradient norm in closed form."""
