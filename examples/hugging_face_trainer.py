"""Teleports in the Trainer of transformers: a callback before the epochs that it is told.

Attention runs as plain products (attn_implementation="eager"): torch's fused kernels have no second derivative.

Run: pip install transformers accelerate && python examples/hugging_face_trainer.py
"""

import tempfile

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from teleport import NullSpace
from teleport.integrations.transformers import TeleportCallback


class Counting(Dataset):
    """Sequences that count up from a random number, modulo 50."""

    def __len__(self):
        return 512

    def __getitem__(self, index):
        tokens = (torch.arange(16) + index * 7) % 50
        return {"input_ids": tokens, "labels": tokens}


set_seed(0)
config = GPT2Config(
    vocab_size=50, n_positions=16, n_embd=192, n_layer=2, n_head=4, attn_implementation="eager",
    bos_token_id=0, eos_token_id=0,
)  # fmt: skip
model = GPT2LMHeadModel(config)
teleports = TeleportCallback(NullSpace(path="shortest"), epochs=[0, 1])
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        model,
        TrainingArguments(
            folder, num_train_epochs=2, per_device_train_batch_size=8, learning_rate=1e-3, report_to="none",
            use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no",
        ),
        train_dataset=Counting(),
        callbacks=[teleports],
    )  # fmt: skip
    result = trainer.train()
for epoch, report in teleports.reports.items():
    print(f"epoch {epoch}: {report}")
print(f"training loss {result.training_loss:.4f}")
