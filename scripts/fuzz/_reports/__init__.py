"""Random networks with awkward parts, calls of every method on them, and the invariants of reports."""
