"""A method of one's own, written to the library's contract and timed against the library's.

A method is called as ``method(model, batches, loss_fn, *, generator=None, callback=None)``, changes parameters in place
and returns a ``TeleportReport``. This one keeps the random change of basis with the largest gradient of several.
`CONTRIBUTING.md` says how a method becomes an option of the suite.

Run: python examples/own_method.py
"""

import time

import torch
from torch import nn
from torch.nn import functional as F

from teleport import BatchReport, ChangeOfBasis, NullSpace, Rescaling, Stopped, TeleportReport


class BestOfRandomBases:
    """The best of ``tries`` random changes of basis, by the gradient norm on the first batch."""

    def __init__(self, tries=16, size=0.5):
        self.tries, self.change = tries, ChangeOfBasis(sampling="inter", range=size)

    def __call__(self, model, batches, loss_fn, *, generator=None, callback=None):
        start, batches = time.perf_counter(), list(batches)
        loss, before = norm(model, batches[0], loss_fn)
        values = best = [parameter.detach().clone() for parameter in model.parameters()]
        found = before
        for _ in range(self.tries):
            self.change(model, [batches[0][0]], generator=generator)
            reached = norm(model, batches[0], loss_fn)[1]
            if reached > found:
                found, best = reached, [parameter.detach().clone() for parameter in model.parameters()]
            write(model, values)
        write(model, best)
        after = norm(model, batches[0], loss_fn)[0]
        one = BatchReport(loss, after, before, found, self.tries, Stopped.STEPS_DONE)
        return TeleportReport("best", loss, after, before, found, [one], [], time.perf_counter() - start)


def norm(model, batch, loss_fn):
    loss = loss_fn(model, batch)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), sum(gradient.square().sum() for gradient in gradients).sqrt().item()


@torch.no_grad()
def write(model, values):
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.copy_(value)


for method in (BestOfRandomBases(), Rescaling(relative_cap=None, cap=None), NullSpace()):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 5))
    batches = [(torch.randn(64, 20), torch.randint(5, (64,)))]
    report = method(model, batches, lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))
    print(f"{type(method).__name__:18} loss {report.loss_before:.5f} -> {report.loss_after:.5f}", end="  ")
    print(f"norm {report.gradient_norm_before:.3f} -> {report.gradient_norm_after:.3f}  {report.seconds:.3f} s")
