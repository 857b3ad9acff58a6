"""The space of runs, typed: from a composed configuration to a checked one and its name."""
