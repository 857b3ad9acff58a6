"""Tables of figures for the tests of drawings, and the texts of a picture."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from experiments.figures.subjects.angles import PAIRS
from experiments.figures.table import gather, parse, to_csv

VGG = {"data": "cifar10", "model": "vgg16"}
MLP = {"data": "random", "model": "mlp"}
FAILED = pd.DataFrame({"reason": ["it is not here"]})


def cell(teleport, seed, losses, moved=None, task=("digits", "mlp", "sgd"), **where):
    rows = pd.DataFrame({"event": "evaluation", "step": range(0, 10 * len(losses), 10), "train_loss": losses})
    rows["moved_layers"] = math.nan
    if moved is not None:
        event = pd.DataFrame({"event": ["teleport"], "step": [0], "train_loss": losses[:1], "moved_layers": [moved]})
        rows = pd.concat([rows, event], ignore_index=True)
    rows["epoch"], rows["seconds"], rows["test_loss"] = rows["step"] / 10, rows["step"] * 0.1, rows["train_loss"]
    labels = dict(zip(("data", "model", "optimizer"), task, strict=True)) | {"teleport": teleport, "seed": seed}
    return labels, rows.assign(run=f"{teleport}{seed}", **where)


def tabled(*cells):
    return parse(to_csv(gather(cells, "smoke", 1)), "it")


def said(figure):
    texts = [text for axes in figure.axes for text in axes.texts] + figure.texts
    return " ".join(" ".join(text.get_text().split()) for text in texts)


def angle_rows(spread):
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({"batch_size": np.tile([8, 64], 50), "number": np.repeat(np.arange(50), 2)})
    for pair in PAIRS:
        rows[pair] = 90 + spread * generator.standard_normal(100)
    return rows.assign(parameters=14_719_818)


def magnitude_rows():
    rows = [
        {
            "range": size,
            "number": teleport,
            "source": "theorem",
            "difference": size * teleport,
            "gain": 1 + size,
            "normalised_gain": 1 - size,
        }
        for size in (0.1, 0.9)
        for teleport in (0, 1, 2)
    ]
    rows.append(
        {"range": 0.9, "number": 0, "source": "backpropagation", "difference": 0.4, "gain": 1.9, "normalised_gain": 0.1}
    )
    return pd.DataFrame(rows)
