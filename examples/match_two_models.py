"""Two trainings of one network brought together, and merged into one by the mean of their weights.

The units of two trained networks stand in different orders. `teleport.match` permutes those of the second so that they
are near to the first's; its function stays. The loss on the line between both networks then rises less, or not at all.

Run: pip install 'teleport-suite[match]' && python examples/match_two_models.py
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

import teleport

torch.manual_seed(0)
centers = torch.randn(30, 16)  # of 10 classes, three clusters each
labels = torch.arange(30) % 10


def data(samples):
    chosen = torch.randint(30, (samples,))
    return centers[chosen] + 0.7 * torch.randn(samples, 16), labels[chosen]


train, test = data(2000), data(1000)


def loss_fn(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def trained(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(150):
        rows = torch.randint(2000, (100,))
        optimizer.zero_grad()
        loss_fn(model, (train[0][rows], train[1][rows])).backward()
        optimizer.step()
    return model


a, b = trained(1), trained(2)
ways = {"as they are": None, "by weights": {}, "by activations": {"by": "activations"}}
for name, options in ways.items():
    moved = b if options is None else teleport.match(a, b, [train], group="permutation", **options).model
    assert torch.allclose(moved(test[0]), b(test[0]), atol=1e-3), "the function has changed"
    barrier = teleport.barrier(a, moved, [test], loss_fn, points=11)
    merged = copy.deepcopy(a)
    mean = {key: (value + moved.state_dict()[key]) / 2 for key, value in a.state_dict().items()}
    merged.load_state_dict(mean)
    right = (merged(test[0]).argmax(1) == test[1]).float().mean()
    print(f"{name:15} barrier {barrier.height:.3f}, accuracy of the mean of both {right:.3f}")
