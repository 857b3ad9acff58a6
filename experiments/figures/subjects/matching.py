"""Loss barriers between networks of two seeds, as they are and after one is matched to the other.

The question is that of Entezari et al. 2022 and Ainsworth et al. 2023: whether two trainings end in one basin but for
the order of their units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.figures import page, style
from experiments.figures.arms import Arms
from experiments.figures.runs import FigureRun, partner
from experiments.figures.subjects.barriers import along_line, draw_arms

MATCHINGS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "weights": {"group": "permutation"},
    "activations": {"group": "permutation", "by": "activations"},
    "factors": {"group": "all"},
}
"""Name -> options of ``teleport.match``; in networks with ReLU ``all`` is permutations and positive factors."""

ARMS = Arms(
    "matching",
    {
        "none": ("as they are", style.GRAY, "--"),
        "weights": ("permuted by weights", style.PALETTE[0], "-"),
        "activations": ("permuted by activations", style.PALETTE[1], "-"),
        "factors": ("permuted and scaled by weights", "#000000", ":"),
    },
    {"none": "none", "weights": "weights", "activations": "activ.", "factors": "factors"},
)


def measure_matching(run: FigureRun, *, points: int, samples: int, match_samples: int, other_seed: int) -> pd.DataFrame:
    """Losses on the line from a network (alpha = 0) to one of another seed (alpha = 1), by how that one is matched.

    Args:
        run: trained; one of a seed from ``other_seed`` on is only the other end of a line and has no rows.
        points: alphas, evenly from 0 to 1.
        samples: of each split, for the losses; batch norms take their statistics from those of the training split.
        match_samples: of the training split, for the activations and for the check that the function stays.
        other_seed: added to the seed of a run for the other end of its line.

    Returns:
        rows as of the measure ``barriers``, with ``matching`` (one of :data:`MATCHINGS`), ``distance`` (of the
        parameters, relative to the norm of those at alpha = 0) and ``difference`` (how far matching moved the outputs,
        relative to the largest).

    Raises:
        UserError: the figure lacks the run at the other end, or it has no result.
    """
    if run.labels["seed"] >= other_seed:
        return pd.DataFrame()
    other = partner(run, seed=run.labels["seed"] + other_seed)
    import torch

    from experiments.figures.rebuilt import rebuild
    from teleport import match

    ends = rebuild(run), rebuild(other)
    for each in ends:
        each.load_trained()
    rebuilt, (first, second) = ends[0], (each.model for each in ends)
    split = rebuilt.task.train
    batch = split.batch(torch.arange(min(match_samples, len(split)), device=rebuilt.device))
    alphas = np.linspace(0.0, 1.0, points)
    frames = []
    for name, options in MATCHINGS.items():
        found = None if options is None else match(first, second, [batch], **options)
        rows = along_line(rebuilt, first, second if found is None else found.model, alphas, samples)
        frames.append(rows.assign(matching=name, difference=0.0 if found is None else found.difference))
    return pd.concat(frames, ignore_index=True)


def draw_matching(table: pd.DataFrame, title: str) -> page.Page:
    """One row per network: the excess of the loss along the line, on both splits, and the barriers.

    Args:
        table: rows of :func:`measure_matching`.
        title: of the whole picture.

    Raises:
        UserError: the table has another matching than those of :data:`MATCHINGS`.
    """
    rows = table[table["reason"] == ""]
    ARMS.check("matching", rows)
    sizes = [name for name in ("model.widths", "model.channels") if name in rows]
    tasks = {}
    for labels, here in rows.fillna(dict.fromkeys(sizes, "")).groupby(["data", "model", *sizes], sort=False):
        data, model, *size = labels
        words = f"{style.label(style.DATA, data)}, {style.label(style.MODELS, model)}"
        tasks[f"{words} {''.join(map(style.sizes, size))}".strip()] = here
    return draw_arms(table, title, ARMS, tasks, "alpha, from one seed (0) to another")
