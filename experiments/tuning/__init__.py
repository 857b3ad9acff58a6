"""Both sides of a comparison tuned with equal numbers of trials, each judged at the same seconds."""
