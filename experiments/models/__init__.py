"""The networks that teleports are tried on, each built from what the task takes and returns."""
