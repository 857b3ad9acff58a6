"""A loop of one's own: does a teleport pay? Beside a random move, a larger rate, and the seconds of each.

Run: python examples/plain_loop.py
"""

import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from teleport import NullSpace, RandomNullSpace

digits = load_digits()
IMAGES = torch.tensor(digits.data, dtype=torch.float32) / 16
LABELS = torch.tensor(digits.target)
BATCH, EPOCHS, RATE = 64, 6, 0.05


def loss_fn(model, batch):
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets)


def train(rate, teleporter=None):
    """The loss on all images after the training, its seconds, and what the first teleport did."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), rate)
    order = torch.Generator().manual_seed(0)
    first, start = None, time.perf_counter()
    for epoch in range(EPOCHS):
        batches = [(IMAGES[rows], LABELS[rows]) for rows in torch.randperm(len(IMAGES), generator=order).split(BATCH)]
        if teleporter is not None and epoch < 3:
            report = teleporter(model, batches[:1], loss_fn)
            first = first or report
        for batch in batches:
            optimizer.zero_grad()
            loss_fn(model, batch).backward()
            optimizer.step()
    return loss_fn(model, (IMAGES, LABELS)).item(), time.perf_counter() - start, first


for name, rate, teleporter in (
    ("no teleport", RATE, None),
    ("null space", RATE, NullSpace(path="shortest")),
    ("random move", RATE, RandomNullSpace(relative_cap=2.0)),
    ("no teleport, rate doubled", 2 * RATE, None),
):
    loss, seconds, report = train(rate, teleporter)
    grown = "" if report is None else f"  norm {report.gradient_norm_before:.2f} -> {report.gradient_norm_after:.2f}"
    print(f"{name:26} loss {loss:.4f} after {seconds:.2f} s{grown}")
