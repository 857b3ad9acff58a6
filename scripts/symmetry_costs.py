"""The cost of symmetries and of their actions on a Llama-like model, beside a rotation of it that is written by hand.

python scripts/symmetry_costs.py --layers 12

Processor seconds with one thread, the least of several rounds in which both sides take turns; random weights. The aims:
a search takes at most two evaluations and a second, a permutation three times what touching every weight takes, and
a rotation twice the time of its products. Needs transformers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.data.compat import torchvision
from teleport import GroupElement, find_symmetries

WIDTH, VOCABULARY, LENGTH = 768, 1000, 64


def seconds(work: Callable[[], Any]) -> float:
    """The processor's, of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def llama(layers: int) -> nn.Module:
    """A Llama-like of 12 heads, 4 of them of keys."""
    torchvision()  # transformers imports it
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": WIDTH, "intermediate_size": 2048, "num_attention_heads": 12, "num_key_value_heads": 4}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=layers, **sizes)).eval()


def by_hand(model: Any, rotation: Tensor) -> None:
    """Rotate the residual stream in double precision, as quantisers do for this one architecture."""
    for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
        weight.copy_(weight.double() @ rotation)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            reader.weight.copy_(reader.weight.double() @ rotation)
        for writer in (attention.o_proj, mlp.down_proj):
            writer.weight.copy_(rotation.mT @ writer.weight.double())


def products(model: nn.Module, rotation: Tensor) -> None:
    """What a rotation multiplies, and nothing else."""
    for weight in model.parameters():
        if weight.dim() == 2:
            double = weight.double()
            _ = double @ rotation if weight.shape[1] == WIDTH else rotation.mT @ double


def touch(model: nn.Module) -> None:
    """Read and write every weight once."""
    for weight in model.parameters():
        weight.mul_(1.0)


@torch.no_grad()
def main() -> None:
    """Print one line per cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, inputs = llama(arguments.layers), torch.randint(VOCABULARY, (1, LENGTH))

    def forward(model: nn.Module, batch: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=batch, use_cache=False).logits
        return logits

    rounds = range(arguments.rounds)
    evaluation = min(seconds(lambda: forward(model, inputs)) for _ in rounds)
    search = min(seconds(lambda: find_symmetries(model, inputs, forward, fold_norms=True)) for _ in rounds)
    print(f"evaluation {evaluation:.3f} s, search {search:.3f} s, aim {2 * evaluation + 1:.3f} s", flush=True)
    symmetries = find_symmetries(model, inputs, forward, fold_norms=True)
    before = forward(model, inputs)
    symmetries.folding().apply(model)
    generator = torch.Generator().manual_seed(0)
    permutation = symmetries.sample("permutation", generator)
    whole = symmetries.sample("orthogonal", generator)
    largest = max(whole.actions, key=lambda each: 0 if each.matrix is None else each.matrix.shape[-1])
    assert largest.matrix is not None
    rotation = largest.matrix[0]
    stream = GroupElement(whole.axes, [largest], whole.ones)
    costs: dict[str, list[float]] = {}
    sides: dict[str, Callable[[], Any]] = {
        "touching every weight": lambda: touch(model),
        "permutation": lambda: permutation.apply(model),
        "products": lambda: products(model, rotation),
        "rotation by hand": lambda: by_hand(model, rotation),
        "rotation": lambda: stream.apply(model),
        "all rotations": lambda: whole.apply(model),
    }
    for _ in rounds:
        for name, work in sides.items():
            costs.setdefault(name, []).append(seconds(work))
    least = {name: min(each) for name, each in costs.items()}
    for name, each in least.items():
        print(f"{name:<22} {each:.3f} s")
    print(f"permutation / touching {least['permutation'] / least['touching every weight']:.1f}, aim 3")
    print(f"rotation / products {least['rotation'] / least['products']:.2f}, aim 2")
    print(f"rotation / by hand {least['rotation'] / least['rotation by hand']:.2f}")
    after = forward(model, inputs)
    print(f"outputs moved by {float((after - before).abs().max() / before.abs().max()):.1e} of the largest")


if __name__ == "__main__":
    main()
