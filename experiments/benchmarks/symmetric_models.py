"""The models whose symmetries are tabled: small random configurations of families, and torchvision's classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from experiments.data.compat import torchvision

VOCABULARY = 50


@dataclass(frozen=True)
class SymmetricModel:
    """A model of the table.

    Attributes:
        name: of the row.
        source: the package, which may not be installed.
        make: the model, of random weights, in evaluation mode.
        forward: ``forward(model, inputs)``, one tensor.
        inputs: ``inputs(number)``: those that are traced (0), and others, of another batch size and length.
    """

    name: str
    source: str
    make: Callable[[], nn.Module]
    forward: Callable[[nn.Module, Any], Tensor]
    inputs: Callable[[int], Tensor]

    @property
    def installed(self) -> bool:
        """Whether its package is."""
        return find_spec(self.source) is not None


def models(smoke: bool) -> Iterator[SymmetricModel]:
    """All of the table; two in a ``smoke`` measurement."""
    if smoke:
        yield from [each for each in _texts() if each.name == "Llama"]
        yield _classifier("squeezenet1_1")
        return
    yield from _texts()
    yield from _images_of_transformers()
    yield SymmetricModel("GPT2 with LoRA", "peft", _adapted, _logits, _tokens)
    yield from map(_of_timm, TIMM)
    yield from map(_classifier, classifiers())


SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SMALL, "intermediate_size": 48}
GROUPED = {**WIDE, "num_key_value_heads": 2}
GPT = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4}
T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
BART = {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
BART |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
FALCON = {**SMALL, "new_decoder_architecture": False, "multi_query": True}
MIXTRAL = {**GROUPED, "num_local_experts": 4}

TEXTS = {
    "GPT2": ("GPT2Config", "GPT2LMHeadModel", GPT),
    "GPT2 without dropout": ("GPT2Config", "GPT2LMHeadModel", {**GPT, "resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    "GPT2 untied": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {**GPT, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "tie_word_embeddings": False},
    ),
    "BERT": ("BertConfig", "BertForMaskedLM", WIDE),
    "RoBERTa": ("RobertaConfig", "RobertaForMaskedLM", WIDE),
    "ELECTRA": ("ElectraConfig", "ElectraForMaskedLM", {**WIDE, "embedding_size": 32}),
    "ALBERT": ("AlbertConfig", "AlbertForMaskedLM", {**WIDE, "embedding_size": 16}),
    "DistilBERT": (
        "DistilBertConfig",
        "DistilBertForMaskedLM",
        {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "Llama": ("LlamaConfig", "LlamaForCausalLM", GROUPED),
    "Llama tied": ("LlamaConfig", "LlamaForCausalLM", {**GROUPED, "tie_word_embeddings": True}),
    "Mistral": ("MistralConfig", "MistralForCausalLM", GROUPED),
    "Mixtral": ("MixtralConfig", "MixtralForCausalLM", MIXTRAL),
    "Qwen2": ("Qwen2Config", "Qwen2ForCausalLM", GROUPED),
    "Qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**GROUPED, "head_dim": 8}),
    "Gemma": ("GemmaConfig", "GemmaForCausalLM", {**GROUPED, "head_dim": 8}),
    "Phi": ("PhiConfig", "PhiForCausalLM", WIDE),
    "OLMo": ("OlmoConfig", "OlmoForCausalLM", GROUPED),
    "StableLM": ("StableLmConfig", "StableLmForCausalLM", GROUPED),
    "Cohere": ("CohereConfig", "CohereForCausalLM", GROUPED),
    "Starcoder2": ("Starcoder2Config", "Starcoder2ForCausalLM", GROUPED),
    "GPT-J": ("GPTJConfig", "GPTJForCausalLM", {**GPT, "rotary_dim": 8}),
    "GPT-NeoX": ("GPTNeoXConfig", "GPTNeoXForCausalLM", WIDE),
    "OPT": ("OPTConfig", "OPTForCausalLM", {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Bloom": (
        "BloomConfig",
        "BloomForCausalLM",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    ),
    "Falcon": ("FalconConfig", "FalconForCausalLM", FALCON),
    "MPT": ("MptConfig", "MptForCausalLM", {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4}),
    "T5": ("T5Config", "T5ForConditionalGeneration", T5),
    "BART": ("BartConfig", "BartForConditionalGeneration", BART),
    "Mamba": ("MambaConfig", "MambaForCausalLM", {**SMALL, "state_size": 4}),
}
"""Name -> configuration and model of transformers, and sizes."""

PICTURES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PICTURES |= {"image_size": 16, "patch_size": 8, "num_labels": 5}
STAGES = {"depths": [1, 1, 1, 1], "num_labels": 5}

IMAGES = {
    "ViT": ("ViTConfig", "ViTForImageClassification", PICTURES, 16),
    "DeiT": ("DeiTConfig", "DeiTForImageClassification", PICTURES, 16),
    "DINOv2": ("Dinov2Config", "Dinov2ForImageClassification", PICTURES, 16),
    "BEiT": ("BeitConfig", "BeitForImageClassification", PICTURES, 16),
    "ConvNeXt": ("ConvNextConfig", "ConvNextForImageClassification", {**STAGES, "hidden_sizes": [8, 12, 16, 20]}, 64),
    "ResNet of transformers": (
        "ResNetConfig",
        "ResNetForImageClassification",
        {**STAGES, "embedding_size": 8, "hidden_sizes": [16, 24, 32, 40]},
        64,
    ),
}

TIMM = {
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 224,
    "cait_xxs24_224": 224,
    "mixer_s32_224": 224,
    "resnet18": 64,
    "mobilenetv3_small_100": 64,
    "swin_tiny_patch4_window7_224": 224,
}
"""Name in timm -> pixels; cait is a vision transformer with layer scale."""

PIXELS = {"inception_v3": 96, "alexnet": 96, "maxvit_t": 224}


def classifiers() -> list[str]:
    """The names of torchvision's, the smallest first."""
    module = torchvision().models
    sizes = {
        name: next(iter(module.get_model_weights(name))).meta["num_params"]
        for name in module.list_models(module=module)
    }
    return sorted(sizes, key=lambda name: sizes[name])


def _options(name: str) -> dict[str, Any]:
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _classifier(name: str) -> SymmetricModel:
    def make() -> nn.Module:
        return torchvision().models.get_model(name, **_options(name))

    pixels = PIXELS.get(name, 224 if name.startswith("vit") else 64)
    return SymmetricModel(f"torchvision {name}", "torchvision", make, _plain, partial(_pictures, pixels))


def _of_timm(name: str) -> SymmetricModel:
    def make() -> nn.Module:
        torchvision()
        import timm  # type: ignore[import-not-found,import-untyped,unused-ignore]

        return timm.create_model(name, pretrained=False)  # type: ignore[no-any-return,unused-ignore]

    return SymmetricModel(f"timm {name}", "timm", make, _plain, partial(_pictures, TIMM[name]))


def _texts() -> Iterator[SymmetricModel]:
    for name, (config, model, sizes) in TEXTS.items():
        options = {"pad_token_id": 0, "use_cache": False, **sizes}
        yield SymmetricModel(name, "transformers", partial(_of_transformers, config, model, options), _logits, _tokens)


def _images_of_transformers() -> Iterator[SymmetricModel]:
    for name, (config, model, sizes, pixels) in IMAGES.items():
        make = partial(_of_transformers, config, model, sizes)
        yield SymmetricModel(name, "transformers", make, _logits, partial(_pictures, pixels))


def _of_transformers(config: str, model: str, sizes: dict[str, Any]) -> nn.Module:
    torchvision()
    import transformers

    transformers.logging.set_verbosity_error()
    return getattr(transformers, model)(getattr(transformers, config)(**sizes))  # type: ignore[no-any-return]


def _adapted() -> nn.Module:
    import peft  # type: ignore[import-not-found,import-untyped,unused-ignore]

    base = _of_transformers("GPT2Config", "GPT2LMHeadModel", {**GPT, "use_cache": False})
    settings = peft.LoraConfig(r=3, target_modules=["c_attn"], fan_in_fan_out=True)
    model: nn.Module = peft.get_peft_model(base, settings)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model


def _tokens(number: int) -> Tensor:
    counts, lengths = [2, 3, 1], [7, 11, 5]
    source = torch.Generator().manual_seed(number)
    return torch.randint(1, VOCABULARY, (counts[number], lengths[number]), generator=source)


def _pictures(pixels: int, number: int) -> Tensor:
    shape = ([1, 2, 1][number], 3, pixels, pixels)
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    both = {"decoder_input_ids": inputs} if getattr(model.config, "is_encoder_decoder", False) else {}
    found: Tensor = model(inputs, **both).logits
    return found


def _plain(model: nn.Module, inputs: Tensor) -> Tensor:
    found: Tensor = model(inputs)
    return found
