"""Random changes of basis on networks of many kinds: the function, the report, the draws."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from teleport import ChangeOfBasis, Teleported, transport_state
from tests.teleport.networks import Calls, cross_entropy, weight
from tests.teleport.quivers import stack
from tests.teleport.rescalable import cnns, mlps, relative_error
from tests.teleport.residual import channels, images, moved, residual, values


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    st.one_of(mlps(), cnns()), st.sampled_from(["intra", "inter", "positive", "negative", "centered"]), st.booleans()
)
def test_the_function_stays_on_any_data(made, sampling, teleport):
    model, batch = made
    others = 3 * torch.randn(20, *batch[0].shape[1:]).double()
    before = model(others)
    method = ChangeOfBasis(0.8, sampling, center=2.0, activations="teleport" if teleport else "keep")
    report = method(model, [batch])
    assert report.accepted
    assert relative_error(report.model(others), before) < 1e-10
    assert report.difference < 1e-10


@pytest.mark.parametrize("activations", ["keep", "teleport"])
@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.Tanh])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 0.12)], ids=str
)
@pytest.mark.parametrize("sampling", ["intra", "inter"])
def test_a_residual_net(activation, activations, sampling, dtype, tolerance):
    model, others = residual(activation, dtype)
    model.eval()
    before = model(others).detach()
    report = ChangeOfBasis(0.5, sampling, activations=activations)(model, images(dtype))
    assert report.accepted
    assert report.no_op == (activations == "keep" and activation is nn.Tanh)
    after = report.model(others).detach()
    assert after.dtype == dtype
    assert float((after - before).abs().max() / before.abs().max()) < tolerance
    rewritten = activations == "teleport" and (sampling == "inter" or activation is nn.Tanh)
    assert isinstance(report.model, Teleported) == rewritten
    assert rewritten or report.model is model


@pytest.mark.parametrize("center", [0.25, 4.0])
def test_factors_on_one_side_of_one_are_a_change(center):
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    inputs, before = torch.randn(6, 5).double(), copy.deepcopy(model)
    report = ChangeOfBasis(0.125, "centered", center=center, activations="keep")(model, [inputs])
    assert report.accepted
    assert not report.no_op
    ratios = model[0].weight / before[0].weight
    assert bool(((ratios - center).abs() <= 0.125 * (1 + 1e-9)).all())
    assert relative_error(model(inputs), before(inputs)) < 1e-12


def test_a_layer_of_which_a_part_moves_has_the_reason_of_the_rest():
    first, last = nn.Linear(5, 4), nn.Linear(2, 3)

    def forward(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = model[0](x).relu()
        return model[1](hidden[:, :2]), hidden[:, 2:]

    report = ChangeOfBasis(0.5)(nn.Sequential(first, last), [torch.randn(6, 5)], forward=forward)
    layer = next(layer for layer in report.layers if layer.name == "0.weight")
    assert layer.relative_change > 0
    assert (layer.free, layer.pinned) == (2, 2)
    assert "output" in layer.reason


def test_each_element_of_a_scale_has_a_factor_of_its_own():
    """Along both axes: they are the inputs of the next layer, one by one."""
    model = Calls(
        lambda net, x: net.last((x * net.scale).relu().flatten(1)), scale=weight(3, 80), last=nn.Linear(240, 2)
    ).double()
    inputs, before = torch.randn(6, 3, 80).double(), copy.deepcopy(model)
    report = ChangeOfBasis(0.5)(model, [inputs])
    assert report.accepted
    assert len(set((model.scale / before.scale).flatten().tolist())) == 240
    assert relative_error(model(inputs), before(inputs)) < 1e-12


def test_the_report_counts_the_channels():
    model, _ = residual()
    report = ChangeOfBasis()(model, images())
    # standardised: the convolutions before a batch norm; joined: what the skip connection adds
    assert channels(report) == {
        "stem.0.weight": (0, 0, 6),
        "stem.1.weight": (0, 6, 0),
        "branch.0.weight": (0, 0, 5),
        "branch.1.weight": (5, 0, 0),
        "branch.3.weight": (0, 6, 0),
        "head.weight": (0, 0, 3),
    }
    assert report.channels == (5, 12, 14)
    assert {("batch_norm" in why, why == "it is an output"): count for why, count in report.pins.items()} == {
        (True, False): 11,
        (False, True): 3,
    }
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert "batch_norm" in reasons["stem.0.weight"]
    assert reasons["head.weight"]
    assert not reasons["branch.1.weight"]


@pytest.mark.parametrize("train", [True, False])
def test_modes_buffers_keys_and_parameters_are_as_they_were(train):
    model, _ = residual()
    model.train(train)
    model.stem[1].eval()
    modes = [module.training for module in model.modules()]
    keys, start = list(model.state_dict()), values(model)
    identities = [(id(value), value.data_ptr()) for value in (*model.parameters(), *model.buffers())]
    report = ChangeOfBasis()(model, images())
    assert report.model is model
    assert [module.training for module in model.modules()] == modes
    assert [(id(value), value.data_ptr()) for value in (*model.parameters(), *model.buffers())] == identities
    assert list(model.state_dict()) == keys
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, start[name])
    assert report.group.keys() == {dict(model.named_parameters())[name] for name in moved(model, start)}


def test_training_mode_computes_the_same_too():
    model, others = residual()
    plain = copy.deepcopy(model)
    ChangeOfBasis()(model, images())
    assert model.training
    assert relative_error(model(others), plain(others)) < 1e-12
    for (name, old), new in zip(plain.named_buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-12, atol=1e-14, msg=name)


class Wide(nn.Module):
    """Two inputs by name, a mapping of outputs, and a branch that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.unused = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 4)
        self.middle, self.head, self.other = nn.Linear(4, 5), nn.Linear(5, 2), nn.Linear(4, 1)

    def forward(self, left: Tensor, *, right: Tensor) -> dict[str, Any]:
        joined = torch.relu(self.left(left) + self.right(right))
        head = self.head(F.relu(self.middle(joined)))
        return {"head": head, "parts": (self.other(joined), {"index": head.argmax(1)})}


@pytest.mark.parametrize("activations", ["keep", "teleport"])
def test_several_inputs_and_outputs(activations):
    model = Wide().double()
    del model.unused
    batch = {"left": torch.randn(6, 3).double(), "right": torch.randn(6, 2).double()}

    def forward(net: nn.Module, batch: dict[str, Tensor]) -> Any:
        return net(batch["left"], right=batch["right"])

    before = forward(model, batch)
    report = ChangeOfBasis(0.9, "inter", activations=activations)(model, [batch], forward=forward)
    after = forward(report.model, batch)
    assert report.accepted
    assert channels(report)["left.weight"] == (0, 4, 0)
    assert channels(report)["middle.weight"] == (5, 0, 0)
    assert relative_error(after["head"], before["head"]) < 1e-12
    assert relative_error(after["parts"][0], before["parts"][0]) < 1e-12


def test_inputs_without_a_tuple():
    model = stack(5, 7, 3)
    assert ChangeOfBasis()(model, [torch.randn(4, 5).double()]).difference < 1e-13


def test_nothing_free_is_a_no_op_with_its_reason():
    model = nn.Sequential(nn.Linear(5, 4), nn.Softmax(1), nn.Linear(4, 2)).double()
    start = values(model)
    report = ChangeOfBasis()(model, [torch.randn(4, 5).double()])
    assert (report.no_op, report.steps, report.channels) == (True, 0, (0, 0, 6))
    assert report.batches[0].stopped == "nothing moves"
    assert "softmax" in report.reasons()
    assert not moved(model, start)


def test_one_capture_serves_many_teleports():
    model, others = residual()
    model.eval()
    before = model(others).detach()
    method = ChangeOfBasis(0.5)
    quiver = method.capture(model, images()[0])
    changes = [method.sample(quiver) for _ in range(5)]
    for change in changes:
        assert change.apply(model) is model
        assert relative_error(model(others), before) < 1e-12
    assert len({float(change.tau.sum()) for change in changes}) == 5
    other = copy.deepcopy(model)
    method.sample(quiver).apply(other)  # one like it
    assert relative_error(other(others), before) < 1e-12


def test_draws_are_the_seeds_or_a_generators():
    def taus(method: ChangeOfBasis, **options: Any) -> list[float]:
        return [float(method(stack(5, 7, 3), batches, **options).change.tau.sum()) for _ in range(2)]

    batches = [torch.randn(4, 5).double()]
    first = taus(ChangeOfBasis(seed=3))
    torch.manual_seed(99)
    assert taus(ChangeOfBasis(seed=3)) == first
    assert first[0] != first[1]
    assert not set(taus(ChangeOfBasis(seed=4))) & set(first)
    given = [taus(ChangeOfBasis(seed=seed), generator=torch.Generator().manual_seed(3)) for seed in (3, 4)]
    assert given == [first, first]


def test_channels_before_relu_stay_positive_where_activations_are_kept():
    model, _ = residual()
    report = ChangeOfBasis(0.5, "negative")(model, images())
    assert bool((report.change.tau > 0).all())
    linear = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)).double()
    tau = ChangeOfBasis(0.5, "negative")(linear, [torch.randn(4, 5).double()]).change.tau
    assert int((tau < 0).sum()) == 7


def test_momentum_is_carried_along():
    """As the definition has it: gradients of the past, taken in the new basis, are those divided by the factors."""
    model = stack(5, 7, 6, 3)
    batch = (torch.randn(4, 5).double(), torch.arange(4) % 3)
    optimizer = torch.optim.Adam(model.parameters())
    cross_entropy(model, batch).backward()
    optimizer.step()
    held = {parameter: dict(optimizer.state[parameter]) for parameter in model.parameters()}
    held = {parameter: {key: value.clone() for key, value in state.items()} for parameter, state in held.items()}
    report = ChangeOfBasis(0.5)(model, [batch], cross_entropy)
    transport_state(optimizer, report.group)
    for parameter in model.parameters():
        factors = report.group.get(parameter, torch.ones(()).double())
        for key, power in (("exp_avg", 1), ("exp_avg_sq", 2), ("step", 0)):
            expected = held[parameter][key] / factors**power if power else held[parameter][key]
            torch.testing.assert_close(optimizer.state[parameter][key], expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("activations", "sampling"), [("keep", "intra"), ("teleport", "inter")])
def test_attention_is_free_by_its_queries_and_values(activations, sampling):
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu", norm_first=True)
    model = nn.Sequential(nn.Linear(5, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 3))
    model = model.double().eval()
    for value in model.parameters():
        value.data += 0.1 * torch.rand_like(value)
    x = torch.randn(3, 4, 5).double()
    before = model(x).detach()
    report = ChangeOfBasis(0.9, sampling, activations=activations)(model, [torch.randn(3, 4, 5).double()])
    assert relative_error(report.model(x), before) < 1e-11
    attention = channels(report)["1.layers.0.self_attn.in_proj_weight"]
    assert sum(attention) == 24
    assert attention[2] < 24
    feed_forward = channels(report)["1.layers.0.linear1.weight"]
    assert feed_forward == ((12, 0, 0) if activations == "teleport" else (0, 0, 12))
