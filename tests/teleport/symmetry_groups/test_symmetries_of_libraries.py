"""Models of transformers, timm and peft, of random weights: outputs are kept on other inputs and lengths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import teleport
from tests.teleport.vision import torchvision

ROUNDING = 1e-5
"""Models of transformers compute norms and rotary embeddings in single precision."""

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
GPT = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4}
T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
VIT = {**SMALL, "intermediate_size": 48, "image_size": 16, "patch_size": 8, "num_labels": 5}

LANGUAGE = {
    "GPT2": ("GPT2Config", "GPT2LMHeadModel", GPT),
    "BERT": ("BertConfig", "BertForMaskedLM", {**SMALL, "intermediate_size": 48}),
    "Llama": ("LlamaConfig", "LlamaForCausalLM", LLAMA),
    "Mistral": ("MistralConfig", "MistralForCausalLM", LLAMA),
    "Qwen2": ("Qwen2Config", "Qwen2ForCausalLM", LLAMA),
    "T5": ("T5Config", "T5ForConditionalGeneration", T5),
    "Mamba": ("MambaConfig", "MambaForCausalLM", {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2}),
    "GPTNeoX": ("GPTNeoXConfig", "GPTNeoXForCausalLM", {**SMALL, "intermediate_size": 48}),
}


@pytest.fixture(autouse=True)
def vision():
    """torchvision, which transformers and timm import, also with a torch without CUDA."""
    return torchvision()


def kept(model, first, others, run, group):
    """How far the group moves the outputs on other inputs, and the symmetries."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 0.5, 0.2)
    with torch.no_grad():
        before = [run(model, each) for each in others]
        report = teleport.ChangeOfBasis(group=group)(model, [first], forward=run)
        after = [run(model, each) for each in others]
    moves = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(after, before, strict=True)]
    assert report.accepted, [each.reason for each in report.batches]
    return max(moves), report.symmetries


def logits(model, tokens):
    """Without a cache, and with the same tokens for a decoder."""
    both = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    return model(tokens, **both).logits


@pytest.mark.slow
@pytest.mark.parametrize("group", ["permutation", "all"])
@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models_of_transformers(name, group):
    transformers = pytest.importorskip("transformers")
    config, model, sizes = LANGUAGE[name]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**sizes, use_cache=False)).double().eval()
    others = [torch.randint(50, (3, 11)), torch.randint(50, (1, 5))]
    move, found = kept(made, torch.randint(50, (2, 7)), others, logits, group)
    assert move < ROUNDING
    assert found.log10_permutations > 30


@pytest.mark.slow
@pytest.mark.parametrize("group", ["permutation", "all"])
def test_images_of_transformers(group):
    transformers = pytest.importorskip("transformers")
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT)).double().eval()
    images = [torch.randn(count, 3, 16, 16).double() for count in (2, 3)]
    move, found = kept(model, images[0], images[1:], lambda m, x: m(x).logits, group)
    assert move < ROUNDING
    assert found.log10_permutations > 30


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224", "cait_xxs24_224", "resnet18"])
def test_models_of_timm(name):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False).double().eval()
    size = 224 if "224" in name else 64
    images = [torch.randn(count, 3, size, size).double() for count in (1, 2)]
    move, found = kept(model, images[0], images[1:], lambda m, x: m(x), "all")
    assert move < ROUNDING
    assert found.log10_permutations > 500


@pytest.mark.slow
def test_low_rank_adapters_share_a_general_linear_group():
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    base = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT, use_cache=False))
    model = peft.get_peft_model(base, peft.LoraConfig(r=3, target_modules=["c_attn"], fan_in_fan_out=True)).double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    tokens = [torch.randint(50, (2, 7)), torch.randint(50, (3, 9))]
    move, found = kept(model.eval(), tokens[0], tokens[1:], lambda m, x: m(x).logits, "general")
    assert move < ROUNDING
    assert [(each.group, each.units) for each in found.vertices] == [("general linear", 3)] * 2
