"""A transformer in other parameters with the same outputs, saved and loaded in the ordinary format.

A change of basis multiplies the channels of a network by factors that cancel: each layer's weights change, the function
does not. Here GPT-2 with random weights, as no network is needed for that; `from_pretrained` gives trained ones.

Run: pip install transformers && python examples/save_teleported.py
"""

import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from teleport import ChangeOfBasis

torch.manual_seed(0)
config = GPT2Config(
    vocab_size=100, n_positions=32, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
)  # fmt: skip
model = GPT2LMHeadModel(config).eval()
batch, other = torch.randint(100, (2, 8)), torch.randint(100, (3, 20))
before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
expected = model(other).logits.detach()

report = ChangeOfBasis(sampling="inter", range=0.5)(model, [batch])
print(report)
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)  # the ordinary format: nothing of this package is in it
    loaded = GPT2LMHeadModel.from_pretrained(folder).eval()

moved = [name for name, parameter in loaded.named_parameters() if not torch.equal(parameter, before[name])]
error = (loaded(other).logits - expected).abs().max() / expected.abs().max()
print(f"{len(moved)} of {len(before)} parameters have other values, e.g. {', '.join(moved[:3])}")
print(f"outputs on other inputs, of another length: largest relative difference {error:.1e}")
assert moved, "no parameter moved"
assert error < 1e-5, "the function has changed"
