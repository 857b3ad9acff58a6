"""Teleports in Lightning: a callback before the epochs that a schedule names.

Run: pip install lightning && python examples/lightning_callback.py
"""

import itertools

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from teleport import NullSpace


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


class TeleportBeforeEpochs(lightning.Callback):
    """Teleport on the first batches of the training data before each of ``epochs``; the optimizer goes on as it is."""

    def __init__(self, teleporter, epochs, batches=1):
        self.teleporter, self.epochs, self.batches = teleporter, epochs, batches

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch in self.epochs:
            with torch.random.fork_rng():  # so that the training sees the batches that it would see without
                batches = list(itertools.islice(trainer.train_dataloader, self.batches))
            batches = [trainer.strategy.batch_to_device(batch) for batch in batches]
            report = self.teleporter(module, batches, lambda model, batch: model.loss(batch))
            print(f"epoch {trainer.current_epoch}: {report}")


lightning.seed_everything(0)
digits = load_digits()
data = TensorDataset(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))
module = Classifier()
trainer = lightning.Trainer(
    accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    callbacks=[TeleportBeforeEpochs(NullSpace(path="shortest"), epochs={0, 1})],
)  # fmt: skip
trainer.fit(module, DataLoader(data, batch_size=64, shuffle=True))
print(f"loss {module.loss(data[:]).item():.4f}")
