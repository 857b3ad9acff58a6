"""Free channels of Hugging Face models with and without the rule that unreached branches pin what they may read.

python scripts/unreached_cost.py    (needs transformers; models are random and small, nothing is downloaded)

The mixtures of experts, of transformers and with a list of experts, are measured on a batch of 4 tokens, which
reaches some experts, and on one of 4096.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import teleport
from experiments.data.compat import torchvision
from teleport._quiver.find_quiver import QuiverTracer

SMALL = {"vocab_size": 99, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
FEED_FORWARD = {"intermediate_size": 128}


class ListOfExperts(nn.Module):
    """A mixture whose experts are modules of a list, called with the tokens that chose them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.gate = nn.Embedding(99, 64), nn.Linear(64, 64), nn.Linear(64, 8)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)) for _ in range(8))
        self.head = nn.Linear(64, 99)

    def forward(self, input_ids: torch.Tensor) -> Any:
        """Logits ``[tokens, 99]``."""
        hidden = torch.relu(self.up(self.embed(input_ids.flatten())))
        chosen = self.gate(hidden.detach()).argmax(1)
        out = torch.zeros_like(hidden)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().flatten()
            if len(rows):
                out.index_add_(0, rows, expert(hidden[rows]))
        return self.head(out)


def models() -> dict[str, Callable[[Any], nn.Module]]:
    """Name -> the model, given the package."""
    small = {**SMALL, **FEED_FORWARD}
    experts = {"num_experts": 8, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
    t5 = {"vocab_size": 99, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    vit = {name: value for name, value in small.items() if name != "vocab_size"}
    return {
        "GPT-2": lambda t: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=99, n_embd=64, n_layer=2, n_head=4)),
        "BERT": lambda t: t.BertForMaskedLM(t.BertConfig(**small)),
        "Llama": lambda t: t.LlamaForCausalLM(t.LlamaConfig(**small)),
        "T5": lambda t: t.T5ForConditionalGeneration(t.T5Config(**t5)),
        "ViT": lambda t: t.ViTForImageClassification(t.ViTConfig(image_size=32, patch_size=8, **vit)),
        "experts in a list": lambda t: ListOfExperts(),
        "Mixtral": lambda t: t.MixtralForCausalLM(t.MixtralConfig(num_key_value_heads=4, **small)),
        "Qwen2-MoE": lambda t: t.Qwen2MoeForCausalLM(t.Qwen2MoeConfig(num_key_value_heads=4, **small, **experts)),
    }


def batch_for(name: str, tokens: int) -> dict[str, torch.Tensor]:
    """The arguments of an evaluation."""
    if name == "ViT":
        return {"pixel_values": torch.randn(2, 3, 32, 32)}
    ids = torch.randint(99, (max(1, tokens // 64), min(tokens, 64)))
    return {"input_ids": ids, "decoder_input_ids": ids} if name == "T5" else {"input_ids": ids}


def free_channels(model: nn.Module, batch: Any, rule: bool) -> tuple[int, int, int]:
    """How many channels are free, shared and pinned."""
    result = QuiverTracer.result

    def without(tracer: QuiverTracer) -> Any:
        tracer.unread.clear()
        return result(tracer)

    QuiverTracer.result = result if rule else without  # type: ignore[method-assign]
    try:
        report = teleport.preview(teleport.ChangeOfBasis(0.5), model, [batch], None)  # type: ignore[arg-type]
    finally:
        QuiverTracer.result = result  # type: ignore[method-assign]
    return report.channels  # type: ignore[attr-defined, no-any-return]


def main() -> None:
    """Print one row per model and batch."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    try:
        torchvision()  # transformers imports it, which fails with a CPU build of torch and the torchvision of PyPI
        import transformers
    except ImportError:
        sys.exit("error: the models are those of transformers; install it: pip install transformers")

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    print("| model | tokens | free or shared of all channels, with the rule | without |")
    print("|---|---|---|---|")
    for name, make in models().items():
        for tokens in (4, 4096) if name in ("experts in a list", "Mixtral", "Qwen2-MoE") else (128,):
            torch.manual_seed(0)
            model = make(transformers).eval()
            batch = batch_for(name, tokens)
            rows = [free_channels(model, batch, rule) for rule in (True, False)]
            texts = [f"{free + shared} of {free + shared + pinned}" for free, shared, pinned in rows]
            print(f"| {name} | {tokens} | {texts[0]} | {texts[1]} |", flush=True)


if __name__ == "__main__":
    main()
