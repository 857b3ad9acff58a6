"""Fuzzers: random inputs, with invariants that are checked on every case."""
