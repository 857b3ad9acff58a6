"""The registered linear operations against the Jacobian of the layer's output with respect to its weight and bias."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teleport import LinearUse, NullSpace, register_view
from teleport._tracing import linear_uses
from teleport._tracing.layer_tracer import trace_layers
from tests.teleport.networks import WIDTH, Calls, cross_entropy, weight
from tests.teleport.reference import concatenated_heads, jacobian, null_projection

FEW = settings(derandomize=True, max_examples=20, deadline=None)


def captured(function, parameters):
    """The layers of ``function(*parameters)``."""
    named = {f"p{index}": nn.Parameter(parameter) for index, parameter in enumerate(parameters)}
    result = trace_layers(lambda _: function(*named.values()), [None], named, shared_objective=False)
    return list(named.values()), result


def library_projection(layer, subspace, parameters):
    """The library's projection of every basis vector of the flattened parameters, ``[size, size]``."""
    columns = []
    for unit in torch.eye(sum(p.numel() for p in parameters), dtype=torch.float64):
        parts = unit.split([p.numel() for p in parameters])
        given_tensors = {p: part.reshape(p.shape).clone() for p, part in zip(parameters, parts, strict=True)}
        kept = {p: torch.zeros_like(part) for p, part in given_tensors.items()}
        layer.scatter(subspace.project(layer.gather(given_tensors)), kept)
        columns.append(torch.cat([kept[p].flatten() for p in parameters]))
    return torch.stack(columns, 1).numpy()


def assert_matches_jacobian(function, *parameters):
    """The projection is the orthogonal one on the null space of the output's Jacobian."""
    held, result = captured(function, parameters)
    ((name, layer),) = result.layers.items()
    subspace = result.representations[name].subspace(1.0)
    assert {block.parameter for block in layer.blocks} == set(held)
    projection = library_projection(layer, subspace, held)
    reference = null_projection(jacobian(function, list(parameters)))
    np.testing.assert_allclose(projection, reference, atol=1e-10)
    np.testing.assert_allclose(projection, projection.T, atol=1e-12)
    np.testing.assert_allclose(projection @ projection, projection, atol=1e-12)
    nulls = sum(subspace.ranks)
    assert round(np.trace(projection)) == (layer.groups * layer.dimension - nulls) * rows_of(layer)


def rows_of(layer):
    """Outputs per group of the layer's matrices."""
    matrix = layer.gather({block.parameter: block.parameter.detach() for block in layer.blocks})
    return matrix.shape[1]


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@FEW
@given(
    n=st.integers(1, 6), dimension=st.integers(1, 6), out=st.integers(1, 3), bias=st.booleans(), tokens=st.booleans()
)
def test_linear(n, dimension, out, bias, tokens):
    inputs = normal(n, 2, dimension) if tokens else normal(n, dimension)
    parameters = [normal(out, dimension), normal(out)][: 1 + bias]
    assert_matches_jacobian(lambda *p: F.linear(inputs, *p), *parameters)


@FEW
@given(n=st.integers(1, 6), dimension=st.integers(1, 6), out=st.integers(1, 3), spelt=st.integers(0, 5))
def test_weights_stored_transposed(n, dimension, out, spelt):
    inputs = normal(n, dimension)
    ways = [
        lambda w: inputs @ w,
        lambda w: torch.matmul(inputs.expand(2, n, dimension), w),
        lambda w: inputs.mm(mat2=w),
        lambda w: torch.matmul(input=inputs, other=w),
        lambda w: F.linear(inputs, w.T),
        lambda w: torch.mm(inputs, w),
    ]
    assert_matches_jacobian(ways[spelt], normal(dimension, out))


@FEW
@given(n=st.integers(1, 6), dimension=st.integers(1, 6), out=st.integers(1, 3), method=st.booleans())
def test_addmm(n, dimension, out, method):
    inputs = normal(n, dimension)
    ways = [lambda b, w: torch.addmm(b, inputs, w), lambda b, w: b.addmm(inputs, w)]
    assert_matches_jacobian(ways[method], normal(out), normal(dimension, out))


@st.composite
def convolutions(draw, spatial):
    """Arguments of a convolution module, and the size of its input."""
    groups = draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 2 + (spatial == 1))) for _ in range(spatial)]
    same = draw(st.booleans())
    options = {
        "in_channels": groups * draw(st.integers(1, 2)),
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": kernel,
        "groups": groups,
        "dilation": draw(st.integers(1, 2)),
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"])),
        "padding": "same" if same else draw(st.just("valid") | st.tuples(*[st.integers(0, 1)] * spatial)),
        "stride": 1 if same else draw(st.integers(1, 2)),
    }
    return options, [draw(st.integers(3, 4)) + 2 * (spatial == 1) for _ in range(spatial)], draw(st.booleans())


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_convolutions(spatial):
    @FEW
    @given(convolutions(spatial))
    def check(drawn):
        options, size, batched = drawn
        module = getattr(nn, f"Conv{spatial}d")(**options).double()
        inputs = normal(*[1] * batched, options["in_channels"], *size)
        names = [name for name, _ in module.named_parameters()]

        def call(*parameters):
            return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (inputs,))

        assert_matches_jacobian(call, *(p.detach() for p in module.parameters()))

    check()


def test_a_convolution_that_differs_by_axis():
    inputs = normal(1, 1, 4, 5)
    options = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
    assert_matches_jacobian(lambda w: F.conv2d(inputs, w, **options), normal(2, 1, 3, 2))
    assert_matches_jacobian(lambda w: F.conv2d(inputs, w, padding=(0, 1)), normal(2, 1, 4, 2))


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_the_extent_of_a_convolution_bounds_its_rows(spatial):
    @FEW
    @given(convolutions(spatial))
    def check(drawn):
        options, size, batched = drawn
        module = getattr(nn, f"Conv{spatial}d")(**options).double()
        inputs = normal(*[3] * batched, options["in_channels"], *size)
        name = f"conv{spatial}d"
        settings = [getattr(module, key) for key in ("weight", "bias", "stride", "padding", "dilation", "groups")]
        (use,) = linear_uses.linear_uses(getattr(F, name), (inputs, *settings), {})
        rows = torch.cat(list(use.rows()), dim=1)
        positions, energies = use.extent()
        assert positions == rows.shape[1]
        squares = rows.square().sum(dim=(1, 2))
        assert (energies >= squares * (1 - 1e-12)).all()
        if options["stride"] == 1 and math.prod(options["kernel_size"]) == 1:
            torch.testing.assert_close(energies, squares)  # each element is read once

    check()


def test_convolution_in_chunks(monkeypatch):
    inputs = normal(5, 2, 3, 3)
    monkeypatch.setattr(linear_uses, "CHUNK", 40)
    assert_matches_jacobian(lambda w, b: F.conv2d(inputs, w, b, stride=2), normal(2, 2, 2, 2), normal(2))


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_transposed_convolutions(spatial):
    """Every output stays, the projection being the one on the null space of the channel vectors of all positions."""

    @FEW
    @given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(1, 2), st.booleans())
    def check(groups, channels, stride, padding, dilation, batched):
        inputs = normal(*[1] * batched, 2 * groups * channels, *[2] * spatial)
        output_padding = 1 if max(stride, dilation) > 1 else 0
        call = getattr(F, f"conv_transpose{spatial}d")

        def function(w):
            return call(inputs, w, None, stride, padding, output_padding, groups, dilation)

        w = normal(2 * groups * channels, 2, *[2] * spatial)
        held, result = captured(function, [w])
        ((name, layer),) = result.layers.items()
        subspace = result.representations[name].subspace(1.0)
        matrix = layer.gather({held[0]: w})
        vectors = inputs.reshape(-1, groups, 2 * channels, 2**spatial)  # [n, groups, channels, positions]
        for group in range(groups):
            rows = vectors[:, group].transpose(1, 2).reshape(-1, 2 * channels).numpy()
            expected = matrix[group].numpy() @ null_projection(rows)
            np.testing.assert_allclose(subspace.project(matrix)[group].numpy(), expected, atol=1e-11)
        moved = torch.zeros_like(w)
        layer.scatter(subspace.project(matrix), {held[0]: moved})
        torch.testing.assert_close(function(w + moved), function(w), atol=1e-11, rtol=0)

    check()


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_attention_projections_see_their_inputs(cross, need_weights):
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double()
    query = normal(2, 3, 8)[:, :2]
    memory = normal(2, 1, 8) if cross else query
    result = trace_layers(
        lambda _: attention(query, memory, memory, need_weights=need_weights)[0],
        [None],
        dict(attention.named_parameters()),
        shared_objective=False,
    )
    heads = concatenated_heads(query, memory, memory, attention.in_proj_weight, attention.in_proj_bias, 2)
    seen = {"in_proj_weight[0:8]": query, "in_proj_weight[8:16]": memory, "in_proj_weight[16:24]": memory}
    assert not result.pinned
    assert set(result.layers) == {*seen, "out_proj.weight"}
    for name, inputs in {**seen, "out_proj.weight": heads}.items():
        rows = inputs.detach().reshape(-1, 8).numpy()
        reference = null_projection(np.concatenate([rows, np.ones((len(rows), 1))], 1))
        subspace = result.representations[name].subspace(1.0)
        np.testing.assert_allclose(subspace.project(torch.eye(9).double()[None])[0].numpy(), reference, atol=1e-9)
    keys, values = (result.representations[f"in_proj_weight[{part}]"] for part in ("8:16", "16:24"))
    assert keys is values


def test_a_recogniser_registered_by_the_user_lets_the_users_layer_move():
    """The documented example: ``torch.bmm`` with one weight per group."""

    def build():
        torch.manual_seed(1)
        return Calls(
            lambda net, x: net.last(
                torch.tanh(torch.bmm(torch.tanh(net.first(x)).view(-1, 2, WIDTH).transpose(0, 1), net.experts).mean(0))
            ),
            first=nn.Linear(6, 2 * WIDTH),
            experts=weight(2, WIDTH, WIDTH),
            last=nn.Linear(WIDTH, 3),
        ).double()

    batch = (normal(4, 6), torch.arange(4) % 3)
    before = NullSpace(relative_cap=3.0)(build(), [batch], cross_entropy)
    assert "torch.bmm" in before.reasons()

    def recogniser(input, mat2):
        groups, dimension, out = mat2.shape
        flat = mat2.view(groups * dimension, out)
        return [LinearUse("experts", flat, input, lambda: iter([input]), groups=groups, transposed=True)]

    register_view(torch.bmm)(recogniser)
    try:
        model = build()
        outputs = model(batch[0])
        report = NullSpace(lr=100.0, relative_cap=3.0)(model, [batch], cross_entropy)
    finally:
        del linear_uses._REGISTRY[torch.bmm]
    moved = {layer.name: layer.relative_change for layer in report.layers}
    assert moved["experts"] > 1e-6
    torch.testing.assert_close(model(batch[0]), outputs, atol=1e-10, rtol=1e-10)


def test_a_recogniser_whose_rows_do_not_fit_is_named():
    model = nn.Bilinear(3, 3, 2)

    def recogniser(input1, input2, weight, bias=None):
        return [LinearUse("bilinear", weight, input1, lambda: iter([input1]))]

    register_view(F.bilinear)(recogniser)
    try:
        batches = [torch.randn(4, 3)]
        with pytest.raises(ValueError, match="input vectors must come as"):
            NullSpace()(model, batches, lambda net, x: net(x, x).sum(), constraint=batches)
    finally:
        del linear_uses._REGISTRY[F.bilinear]
