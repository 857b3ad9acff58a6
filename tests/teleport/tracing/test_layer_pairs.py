"""Adjacent layers are found at the calls that use them; another use of a weight or a hidden value breaks the pair."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleport._errors import UnsupportedModel
from teleport._tracing.activations import ElementwiseActivation, activation_of
from teleport._tracing.layer_pairs import LayerPairs, trace_layer_pairs
from tests.teleport.networks import Calls, weight
from tests.teleport.traps import scripted_product


def pairs_of(model: nn.Module, inputs: Tensor, penalty=lambda model: 0.0) -> LayerPairs:
    model.eval()

    def evaluate():
        outputs = model(inputs)
        return F.cross_entropy(outputs.flatten(0, -2), torch.zeros(outputs.shape[:-1].numel()).long()) + penalty(model)

    return trace_layer_pairs(evaluate, dict(model.named_parameters()))


def names_of(traced: LayerPairs) -> list[tuple[str, str, str]]:
    return [(pair.lower.name, pair.activation.name, pair.upper.name) for pair in traced.pairs]


def test_an_mlp_of_any_depth_through_dropout_and_reshapes():
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(6, 8),
        nn.LeakyReLU(0.2),
        nn.Dropout(),
        nn.Linear(8, 7, bias=False),
        nn.ReLU(inplace=True),
        nn.Linear(7, 5),
        nn.Linear(5, 3),
    )
    inputs = torch.randn(4, 2, 3)
    traced = pairs_of(model, inputs)
    assert names_of(traced) == [
        ("1.weight", "leaky_relu", "4.weight"),
        ("4.weight", "relu", "6.weight"),
        ("6.weight", "identity", "7.weight"),
    ]
    assert [pair.follows for pair in traced.pairs] == [None, 0, 1]
    assert [pair.lower.bias is not None for pair in traced.pairs] == [True, False, True]
    assert traced.pairs[0].activation.slope == 0.2
    assert torch.equal(traced.pairs[0].inputs, inputs.flatten(1))
    hidden = F.leaky_relu(model[1](inputs.flatten(1)), 0.2).detach()
    assert torch.equal(traced.pairs[1].inputs, hidden)  # although the next activation works in place
    assert torch.equal(traced.pairs[2].inputs, model[4](hidden).relu().detach())
    assert list(traced.unpaired) == ["7.weight"]
    assert "cross_entropy" in traced.unpaired["7.weight"]


def test_each_position_of_a_sequence_is_a_row():
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU("tanh"), nn.Linear(6, 3))
    inputs = torch.randn(2, 5, 4)
    (pair,) = pairs_of(model, inputs).pairs
    assert torch.equal(pair.inputs, inputs.flatten(0, 1))
    values = torch.randn(3)
    assert torch.equal(pair.activation(values), F.gelu(values, approximate="tanh"))


def test_layers_written_as_products():
    model = Calls(lambda net, x: F.elu(x @ net.v, 0.5) @ net.u, v=weight(6, 8), u=weight(8, 3))
    traced = pairs_of(model, torch.randn(4, 6))
    assert names_of(traced) == [("v", "elu", "u")]
    given = {parameter: parameter.detach() for parameter in model.parameters()}
    assert torch.equal(traced.pairs[0].lower.gather(given)[0], model.v.T)


def test_pairs_inside_a_transformer():
    model = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, activation="gelu")
    traced = pairs_of(model, torch.randn(2, 4, 6))
    assert names_of(traced) == [("linear1.weight", "gelu", "linear2.weight")]
    assert "layer_norm" in traced.unpaired["norm1.weight"]
    assert "add" in traced.unpaired["linear2.weight"]


def test_the_head_of_a_convolutional_network():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.Sigmoid(), nn.Linear(5, 3))
    traced = pairs_of(model, torch.randn(4, 1, 4, 4))
    assert names_of(traced) == [("3.weight", "sigmoid", "5.weight")]
    assert "conv2d" in traced.unpaired["0.weight"]


def skip(net, x):
    hidden = torch.relu(net.a(x))
    return net.b(hidden) + hidden


def frozen_bias() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    model[0].bias.requires_grad_(False)
    return model


def tied() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(6, 3))


def between(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), module, nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("model", "name", "why"),
    [
        (nn.Linear(6, 3), "weight", "cross_entropy"),
        (Calls(skip, a=nn.Linear(6, 3), b=nn.Linear(3, 3)), "a.weight", "used twice"),
        (between(nn.BatchNorm1d(6)), "0.weight", "batch_norm"),
        (between(nn.Softmax(1)), "0.weight", "softmax.* not a known elementwise activation"),
        (between(nn.PReLU()), "0.weight", "prelu"),
        (between(nn.Sequential(nn.ReLU(), nn.Tanh())), "0.weight", "tanh"),
        (frozen_bias(), "0.weight", "bias"),
        (tied(), "0.weight", "more than once"),
        (Calls(lambda net, x: net.b(net.a(x).relu().roll(1, 0)), a=nn.Linear(6, 6), b=nn.Linear(6, 3)), "a.", "roll"),
        (Calls(lambda net, x: net.b(net.a(x).relu() + 1), a=nn.Linear(6, 6), b=nn.Linear(6, 3)), "a.", "add"),
        (Calls(lambda net, x: net.b(net.a(x).T.relu()), a=nn.Linear(6, 4), b=nn.Linear(4, 3)), "a.", "T"),
    ],
)
def test_the_reason_for_a_missing_pair_is_named(model, name, why):
    with pytest.raises(
        UnsupportedModel, match=f"no two linear layers .*'{name}.*is the lower layer of no pair.*{why}"
    ) as caught:
        pairs_of(model, torch.randn(4, 6))
    assert "\n" not in str(caught.value)


def test_a_convolution_as_the_lower_layer():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(UnsupportedModel, match=r"'0\.weight' is the lower layer of no pair: it is used by .*conv2d"):
        pairs_of(model, torch.randn(4, 1, 4, 4))


def test_a_penalty_on_a_weight_keeps_it_out_of_pairs():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    traced = pairs_of(model, torch.randn(4, 6), lambda model: model[0].weight.square().sum())
    assert names_of(traced) == [("2.weight", "relu", "4.weight")]
    assert "square" in traced.unpaired["0.weight"]
    assert traced.pairs[0].follows is None


@pytest.mark.parametrize(
    ("penalty", "reason"),
    [
        (lambda model: float(model[0].weight.detach().numpy().sum()), "used by torch.Tensor.numpy other than"),
        (lambda model: scripted_product(torch.ones(1, 6), model[0].weight).sum(), "below the torch functions"),
    ],
)
def test_a_read_outside_of_ordinary_functions_keeps_a_weight_out_of_pairs(penalty, reason):
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    traced = pairs_of(model, torch.randn(4, 6), penalty)
    assert names_of(traced) == [("2.weight", "relu", "4.weight")]
    assert reason in traced.unpaired["0.weight"]


def test_parameters_with_one_storage_are_in_no_pair():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3), nn.Linear(3, 3))
    model[2].weight.data = model[0].weight.data
    traced = pairs_of(model, torch.randn(4, 6))
    assert names_of(traced) == [("4.weight", "identity", "5.weight")]
    assert traced.unpaired["0.weight"] == traced.unpaired["2.weight"] == "it shares storage with another parameter"


def test_reading_metadata_keeps_the_pair():
    def forward(net, x):
        hidden = net.a(x)
        assert hidden.shape[0] == hidden.size(0) == len(hidden)
        return net.b(F.dropout(hidden.relu(), 0.5, net.training))

    model = Calls(forward, a=nn.Linear(6, 6), b=nn.Linear(6, 3))
    assert names_of(pairs_of(model, torch.randn(4, 6))) == [("a.weight", "relu", "b.weight")]


def dropping(*arguments, **options) -> nn.Module:
    return Calls(lambda net, x: net.b(F.dropout(net.a(x), *arguments, **options)), a=nn.Linear(6, 6), b=nn.Linear(6, 3))


@pytest.mark.parametrize("model", [dropping(), dropping(0.5), dropping(0.5, True), dropping(training=True)])
def test_an_active_dropout_breaks_the_pair(model):
    with pytest.raises(UnsupportedModel, match="dropout"):
        pairs_of(model, torch.randn(4, 6))


@pytest.mark.parametrize("model", [dropping(0.5, False), dropping(training=False)])
def test_an_inactive_dropout_keeps_the_pair(model):
    assert names_of(pairs_of(model, torch.randn(4, 6))) == [("a.weight", "identity", "b.weight")]


@pytest.mark.parametrize("slope", [0.01, 0.5, 3.0])
def test_a_leaky_relu_is_inverted(slope):
    activation = activation_of(F.leaky_relu, (torch.zeros(1),), {"negative_slope": slope, "inplace": True})
    values = torch.randn(20, dtype=torch.float64)
    inverse = activation.inverse()
    torch.testing.assert_close(inverse(F.leaky_relu(values, slope)), values, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["relu", "tanh", "elu", "sigmoid", "gelu", "softplus"])
def test_no_inverse_from_all_of_the_reals(name):
    function = getattr(F, name)
    assert ElementwiseActivation(name, function).inverse() is None


def test_a_leaky_relu_without_a_positive_slope_has_no_inverse():
    assert ElementwiseActivation("leaky_relu", F.leaky_relu, (0.0,)).inverse() is None
    assert ElementwiseActivation("leaky_relu", F.leaky_relu, (-0.5,)).inverse() is None
