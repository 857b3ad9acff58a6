"""Families of transformers as they are called by default: with caches, padding and both kinds of attention."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import teleport
from tests.teleport.symmetry_groups.test_symmetries_of_libraries import GPT, LLAMA, ROUNDING, SMALL, T5
from tests.teleport.vision import torchvision

SINGLE = 1e-4
"""Of models in single precision."""

WIDE = {**SMALL, "intermediate_size": 48}
HEADS = {**LLAMA, "head_dim": 8}
TOWER = {**WIDE, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
PIXELS = {key: size for key, size in WIDE.items() if key != "vocab_size"} | {"image_size": 16, "patch_size": 8}

DECODERS = {
    "GPT-NeoX": ("GPTNeoX", "GPTNeoXForCausalLM", {**WIDE, "rotary_pct": 0.5}),
    "Phi": ("Phi", "PhiForCausalLM", {**WIDE, "qk_layernorm": True}),
    "StableLM": ("StableLm", "StableLmForCausalLM", {**LLAMA, "partial_rotary_factor": 0.5}),
    "Persimmon": ("Persimmon", "PersimmonForCausalLM", WIDE),
    "GPT-J": ("GPTJ", "GPTJForCausalLM", {**GPT, "rotary_dim": 4}),
    "Phi-3": ("Phi3", "Phi3ForCausalLM", {**LLAMA, "pad_token_id": 0}),
    "Gemma": ("Gemma", "GemmaForCausalLM", HEADS),
    "Gemma 2": ("Gemma2", "Gemma2ForCausalLM", {**HEADS, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0}),
    "Gemma 3": ("Gemma3Text", "Gemma3ForCausalLM", HEADS),
    "Qwen2": ("Qwen2", "Qwen2ForCausalLM", LLAMA),
    "Qwen3": ("Qwen3", "Qwen3ForCausalLM", HEADS),
    "OPT": ("OPT", "OPTForCausalLM", {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 16}),
    "Falcon": ("Falcon", "FalconForCausalLM", {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "Falcon with ALiBi": ("Falcon", "FalconForCausalLM", {**SMALL, "alibi": True, "multi_query": False}),
}
OTHERS = {
    "RoBERTa": ("Roberta", "RobertaForMaskedLM", WIDE),
    "DeBERTa v2": ("DebertaV2", "DebertaV2ForMaskedLM", {**WIDE, "relative_attention": True, "pos_att_type": ["c2p"]}),
    "T5 with gates": ("T5", "T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu"}),
    "CLIP": ("CLIP", "CLIPModel", {"text_config": TOWER, "vision_config": PIXELS, "projection_dim": 16}),
    "SigLIP": ("Siglip", "SiglipModel", {"text_config": TOWER, "vision_config": PIXELS}),
}
FAMILIES = {**DECODERS, **OTHERS}
EAGER = ("Gemma 2", "DeBERTa v2")
"""Have no other attention."""
CACHED = ("Gemma", "Gemma 2", "Gemma 3", "Qwen2", "Qwen3", "OPT")
"""Decoders whose values carry a general linear group per head, also with the cache that they have by default."""


def made(name, attention):
    torchvision()
    transformers = pytest.importorskip("transformers")
    family, model, sizes = FAMILIES[name]
    config = getattr(transformers, f"{family}Config")(**sizes)
    config._attn_implementation = attention
    torch.manual_seed(0)
    network = getattr(transformers, model)(config).double().eval()
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network


def inputs(name, seed, count, length, padded=None):
    """Tokens, with a mask that leaves out two of the first row at one end if ``padded``, and pictures."""
    source = torch.Generator().manual_seed(seed)
    given = {"input_ids": torch.randint(2, 50, (count, length), generator=source)}
    if padded is not None:
        given["attention_mask"] = torch.ones(count, length, dtype=torch.long)
        given["attention_mask"][0, slice(0, 2) if padded == "left" else slice(-2, None)] = 0
    if name in ("CLIP", "SigLIP"):
        given["pixel_values"] = torch.randn(count, 3, 16, 16, generator=source).double()
    if name.startswith("T5"):
        given["decoder_input_ids"] = given["input_ids"][:, 2:]
    return given


def outputs(model, given):
    result = model(**given)
    return result.logits if hasattr(result, "logits") else result.logits_per_image


def seen(values, given):
    """The outputs at positions that are not padding."""
    mask = given.get("attention_mask")
    return values[mask.bool()] if mask is not None and values.shape[:2] == mask.shape and values.dim() == 3 else values


def moved(before, after):
    """The largest change, relative to the largest output. All outputs must be finite, as no other is seen to move."""
    assert all(bool(each.isfinite().all()) for each in (*before, *after))
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(after, before, strict=True))


@torch.no_grad()
def all_outputs(model, name, single=False):
    """On other inputs. Eager attention takes softmax in single precision, where the mask of double precision is
    infinite and rows that are padded on the left are no numbers; so these are read of models in single precision."""
    shapes = [(1, 3, 11, None), (2, 1, 5, None), (3, 3, 9, "right")]
    if single:
        model, shapes = copy.deepcopy(model).float(), [(4, 3, 9, "left")]
    given = [inputs(name, *shape) for shape in shapes]
    if single:
        given = [{key: each.float() if each.is_floating_point() else each for key, each in g.items()} for g in given]
    return [seen(outputs(model, each), each) for each in given]


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_stay_with_caches_and_padding(name, attention):
    if name in EAGER and attention != "eager":
        pytest.skip("the family has eager attention alone")
    model = made(name, attention)
    change = teleport.ChangeOfBasis(group="all", range=0.5, fold_norms=True, guard="none")
    before = [all_outputs(model, name, single) for single in (False, True)]
    report = change(model, [inputs(name, 0, 2, 7)], forward=outputs)
    after = [all_outputs(model, name, single) for single in (False, True)]
    assert moved(before[0], after[0]) < ROUNDING
    assert moved(before[1], after[1]) < SINGLE
    found = report.symmetries
    assert found.log10_permutations > 30
    if name in CACHED:
        general = sum(each.dimension for each in found.vertices if each.group == "general linear")
        assert general >= 256


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Qwen2", "Gemma 3", "OPT"])
def test_steps_with_a_cache_give_the_same_outputs(name):
    model = made(name, "eager")
    start, step = inputs(name, 5, 2, 6)["input_ids"], inputs(name, 6, 2, 1)["input_ids"]

    def decoded():
        with torch.no_grad():
            cache = model(start, use_cache=True).past_key_values
            return model(step, past_key_values=cache, use_cache=True).logits

    before = decoded()
    teleport.ChangeOfBasis(group="all", range=0.5, guard="none")(model, [inputs(name, 0, 2, 7)], forward=outputs)
    assert moved([before], [decoded()]) < ROUNDING
