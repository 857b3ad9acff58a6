"""One recorded run: the loop, its teleports, its records."""
