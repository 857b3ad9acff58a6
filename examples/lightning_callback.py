"""Teleports in Lightning: a callback before the epochs that it is told; the optimizer goes on as it is.

Run: pip install lightning && python examples/lightning_callback.py
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from teleport import NullSpace
from teleport.integrations.lightning import TeleportCallback


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))

    def loss(self, batch):
        inputs, targets = batch
        return F.cross_entropy(self.layers(inputs), targets)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


lightning.seed_everything(0)
digits = load_digits()
data = TensorDataset(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))
module = Classifier()
teleports = TeleportCallback(NullSpace(path="shortest"), lambda module, batch: module.loss(batch), epochs=[0, 1])
trainer = lightning.Trainer(
    accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    callbacks=[teleports],
)  # fmt: skip
trainer.fit(module, DataLoader(data, batch_size=64, shuffle=True))
for epoch, report in teleports.reports.items():
    print(f"epoch {epoch}: {report}")
print(f"loss {module.loss(data[:]).item():.4f}")
