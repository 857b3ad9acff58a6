"""A classifier in Lightning and its training; loaded by the tests that run, as importing Lightning takes seconds."""

from __future__ import annotations

import lightning
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))
        self.seen, self.dtypes = [], []  # the first sample of each batch, and in what the layers compute

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0][0].clone())
        self.dtypes.append(self.layers(batch[0]).dtype)
        loss = cross_entropy(self, batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def cross_entropy(module, batch):
    return F.cross_entropy(module.layers(batch[0]), batch[1])


def data():
    draws = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(96, 6, generator=draws), torch.randint(3, (96,), generator=draws))


def module():
    torch.manual_seed(1)
    return Classifier()


def fit(model, *callbacks, shuffle=False, **options):
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), **options,
    )  # fmt: skip
    torch.manual_seed(2)
    trainer.fit(model, DataLoader(data(), batch_size=16, shuffle=shuffle))
    return model
