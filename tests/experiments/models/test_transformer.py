"""Transformers, against torch's own encoder layer."""

from __future__ import annotations

import pytest
import torch
from specs import SPECS, batch
from torch import nn

from experiments.configuration.model_config import TransformerConfig
from experiments.errors import UserError
from experiments.models.registry import build_model
from experiments.models.transformer import Block, Transformer
from experiments.tasks import Spec


def config(**changes) -> TransformerConfig:
    return TransformerConfig(**{"name": "transformer", "heads": 2, "head_dim": 4, "layers": 2, **changes})


def copied(block: Block, layer: nn.TransformerEncoderLayer) -> None:
    """Give torch's layer the weights of a block."""
    attention = block.attention
    parts = (attention.query, attention.key, attention.value)
    pairs = [
        (layer.self_attn.in_proj_weight, torch.cat([part.weight for part in parts])),
        (layer.self_attn.in_proj_bias, torch.cat([part.bias for part in parts])),
    ]
    for theirs, ours in (
        (layer.self_attn.out_proj, attention.output),
        (layer.linear1, block.mlp[0]),
        (layer.linear2, block.mlp[3]),
        (layer.norm1, block.attention_norm),
        (layer.norm2, block.mlp_norm),
    ):
        pairs += [(theirs.weight, ours.weight), (theirs.bias, ours.bias)]
    with torch.no_grad():
        for target, source in pairs:
            target.copy_(source)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("causal", [False, True])
def test_a_block_is_torchs_encoder_layer(causal, activation):
    width, heads, length = 12, 3, 5
    block = Block(width, heads, 20, activation, causal, dropout=0.0).double()
    for norm in (block.attention_norm, block.mlp_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    layer = nn.TransformerEncoderLayer(
        width, heads, 20, dropout=0.0, activation=activation, batch_first=True, norm_first=True
    ).double()
    copied(block, layer)
    mask = nn.Transformer.generate_square_subsequent_mask(length).double() if causal else None
    x = torch.randn(4, length, width, dtype=torch.float64)
    torch.testing.assert_close(block(x), layer(x, src_mask=mask, is_causal=causal))


@pytest.mark.parametrize("kind", ["sequence", "series", "text"])
def test_parameters_against_the_closed_form(kind):
    spec, width, hidden = SPECS[kind], 8, 32
    model = build_model(config(), spec)
    block = 4 * (width * width + width) + 2 * width * hidden + hidden + width + 2 * 2 * width
    embedding = spec.outputs * width if kind == "text" else (spec.input_shape[1] + 1) * width
    positions = spec.input_shape[0] * width
    expected = embedding + positions + 2 * block + 2 * width + (width + 1) * spec.outputs
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_in_a_text_later_tokens_do_not_change_earlier_logits():
    model = build_model(config(), SPECS["text"])
    tokens = batch(SPECS["text"])
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % SPECS["text"].outputs
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=0)
    assert ((after[:, 4:] - before[:, 4:]).abs().amax(dim=(0, 2)) > 1e-4).all()


def test_in_a_sequence_all_tokens_are_seen_and_order_counts():
    model = build_model(config(), SPECS["sequence"])
    x = batch(SPECS["sequence"]).requires_grad_()
    model(x).square().sum().backward()
    assert (x.grad.abs().amax(-1) > 0).all()
    assert not torch.allclose(model(x), model(x.flip(1)), atol=1e-3)


@pytest.mark.parametrize(("head", "pool"), [("last", lambda x: x[:, -1]), ("mean", lambda x: x.mean(1))])
def test_the_head_of_a_series(head, pool):
    model = build_model(config(series_head=head), SPECS["series"])
    seen = []
    model.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    outputs = model(batch(SPECS["series"]))
    torch.testing.assert_close(outputs, model.head(pool(seen[0])))


def test_dropout_acts_in_training_only():
    model = build_model(config(dropout=0.5), SPECS["sequence"])
    x = batch(SPECS["sequence"])
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_the_second_derivative_exists_in_the_math_path():
    model = build_model(config(), SPECS["text"])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = model(batch(SPECS["text"])).square().mean()
        weight = model.blocks[1].attention.query.weight
        (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), weight)
    assert second.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 0}, r"model\.heads takes numbers above 0"),
        ({"layers": -1}, r"model\.layers takes"),
        ({"dropout": 1.0}, r"model\.dropout takes a share from 0 to below 1, got 1\.0"),
        ({"series_head": "first"}, r"unknown model\.series_head 'first'.*known: last, mean"),
        ({"activation": "rely"}, r"unknown model\.activation 'rely'"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(UserError, match=message):
        build_model(config(**changes), SPECS["series"])


def test_an_unknown_head_in_code():
    with pytest.raises(ValueError, match="head must be one of"):
        Transformer(nn.Linear(3, 8), 5, 2, head="first", heads=2, head_dim=4, layers=1)


def test_a_shorter_input_than_the_positions_allow():
    model = build_model(config(), Spec("text", (6,), 11))
    tokens = batch(SPECS["text"])
    torch.testing.assert_close(model(tokens[:, :3]), model(tokens)[:, :3])
