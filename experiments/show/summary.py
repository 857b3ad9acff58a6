"""Runs side by side as a table of texts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from experiments.show.shown_run import ShownRun


def summary(runs: Sequence[ShownRun], keys: Sequence[str]) -> str:
    """One row per run: the settings that differ, the seed, the last losses, seconds, and the share of its teleports."""
    rows = []
    for run in runs:
        last = run.curve.iloc[-1]
        own = {key.removesuffix(".name"): run.settings.get(key) for key in keys}
        spent = run.events["seconds"].sum() / last["seconds"] if last["seconds"] else 0.0
        told = {
            "seed": run.settings.get("seed"),
            "epochs": f"{last['epoch']:g}" + ("" if run.done else " (goes on)"),
            "train_loss": f"{last['train_loss']:.4g}",
            "test_loss": f"{last['test_loss']:.4g}",
            "seconds": f"{last['seconds']:.1f}",
            "events": len(run.events),
            "of seconds": f"{spent:.1%}",
        }
        rows.append(own | told)
    return pd.DataFrame(rows).to_string(index=False)
