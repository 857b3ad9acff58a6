"""Shared by all methods: the contract, ascent, objectives, events, reports, snapshots and the guard."""
